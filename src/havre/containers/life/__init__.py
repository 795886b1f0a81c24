"""Changes of a container's state: start, stop, health, restart, removal, recovery."""

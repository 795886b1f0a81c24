"""What changes the state of a container: start, stop, health, restart, removal, recovery."""

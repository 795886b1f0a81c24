"""What a start needs around the process: mounts, networks, user IDs, devices, limits."""

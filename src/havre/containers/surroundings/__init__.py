"""The environment of a container's process: mounts, networks, ID ranges, devices, limits."""

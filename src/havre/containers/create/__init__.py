"""From a request to a container that can be started."""

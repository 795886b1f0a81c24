"""Docker's networks and the containers on them; `dataplane` configures the kernel."""

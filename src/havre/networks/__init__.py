"""Networks, and the containers on them; `dataplane` does what they ask of the kernel."""

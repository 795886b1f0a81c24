"""What concerns all nouns at once: information on the host, disk usage, pruning."""

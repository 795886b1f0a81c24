"""Files of containers: copy, diff, export, commit."""

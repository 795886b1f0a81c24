"""Volumes: data that outlives containers, stored by the driver `local` or by a plugin."""

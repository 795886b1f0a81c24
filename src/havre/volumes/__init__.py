"""Volumes: what outlives containers, kept by driver `local` or by a plugin."""

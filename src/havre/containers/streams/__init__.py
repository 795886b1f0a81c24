"""Streams and processes of containers: exec, logs, top, stats."""

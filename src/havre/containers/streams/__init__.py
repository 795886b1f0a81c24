"""Processes of containers and what they say: attach, exec, logs, top, stats."""

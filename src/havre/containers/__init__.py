"""Containers: created, started, watched, joined, copied from and removed."""

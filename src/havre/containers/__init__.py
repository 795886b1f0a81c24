"""Containers: creation, life, streams, files, surroundings."""

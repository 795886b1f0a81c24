"""Builds of images from Dockerfiles: `solve.Builder` is the face, `request` and `progress` its values."""

"""Builds of images from Dockerfiles: `solve.Builder` is the interface, `request` and `progress` have its values."""

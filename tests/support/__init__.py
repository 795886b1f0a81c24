"""Shared by the tests: engines, registries, images, the leak check."""

"""havre: a container engine for Linux that speaks Docker's language."""

__version__ = "0.1.0"

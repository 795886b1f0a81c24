"""havre: a container engine for Linux with Docker's API and command line."""

__version__ = "0.1.0"

"""Blocking bindings of Linux interfaces, without Docker's nouns. The only room that uses ctypes. Raises OSError."""

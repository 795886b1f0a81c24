"""A client of any OCI distribution registry."""

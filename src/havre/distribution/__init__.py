"""A registry server: OCI distribution specification 1.1 on the engine's blob store."""

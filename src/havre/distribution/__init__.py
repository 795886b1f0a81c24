"""A registry: the server side of the OCI distribution specification 1.1, on the blob store of the engine."""

"""One container's process: its OCI specification, conmon, the OCI runtime, exec."""

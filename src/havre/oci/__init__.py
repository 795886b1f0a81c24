"""OCI names, digests, descriptors, manifests and image configuration: values only, no I/O."""

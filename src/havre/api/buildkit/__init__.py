"""BuildKit's gRPC services on the HTTP edge: what buildx and compose speak. Imported at the first build."""

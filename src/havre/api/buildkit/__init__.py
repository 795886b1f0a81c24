"""BuildKit's gRPC services, used by buildx and compose. Imported at the first build."""

"""havred: configuration, composition, and the conversation with the service manager."""

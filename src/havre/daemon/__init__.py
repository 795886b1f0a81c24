"""havred: configuration, composition of the rooms, and the interface to the service manager."""

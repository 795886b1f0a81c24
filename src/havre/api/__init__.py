"""The HTTP server: Docker's Engine API on unix and TCP sockets."""

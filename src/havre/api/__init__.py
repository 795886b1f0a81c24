"""The HTTP edge: Docker's Engine API on unix and TCP sockets."""

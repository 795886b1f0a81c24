"""The Dockerfile builder (not begun: `docker build` answers 501 until it is)."""

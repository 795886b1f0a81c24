"""The kernel's bricks, blocking and without Docker's nouns: the only room with ctypes."""

"""The image store and its operations: list, pull, push, load, save, import and remove."""

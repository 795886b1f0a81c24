"""What Docker inherits from Go: how sizes, durations and truth values are read. Pure; imported by every floor."""

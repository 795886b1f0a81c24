"""Tar archives of hostile origin: one reader, one writer, one extraction that stays below its directory.

For daemon and client; no module here imports more than its users need, for the command line starts quickly.
"""

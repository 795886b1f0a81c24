"""Reads, writes and extracts tar archives of hostile origin; extraction cannot leave its directory.

Used by the daemon and the command line. Modules here import little, because the command line must start quickly.
"""

"""The Docker API client of the command line (and compose); works with dockerd as well as with havre's daemon.

Synchronous, and sparing with imports: everything that `havre ps` needs loads in a millisecond (no `re`, `json`,
`socket`, `typing`, `os`).
"""

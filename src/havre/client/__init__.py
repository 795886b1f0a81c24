"""The Docker API client that the command line (and compose) use; it speaks to dockerd as well as to havred.

Synchronous, and careful about imports: everything on the way of `havre ps` loads in a millisecond (no `re`, `json`,
`socket`, `typing`, `os`).
"""

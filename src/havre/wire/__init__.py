"""Docker's JSON and stream framing: decoding, API versions, filters, frames, progress.

Pure: bytes and text to values and back. Serves `api` and the client rooms.
"""

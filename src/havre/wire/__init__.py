"""Docker's JSON and stream framing: decoding, API versions, filters, frames, progress. Serves api and the client rooms."""

"""Images: kept, listed, pulled, pushed, loaded, saved and removed."""

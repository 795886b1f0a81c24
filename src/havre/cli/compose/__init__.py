"""`havre compose`: one module per kind of verb; what they share is in `scene`."""

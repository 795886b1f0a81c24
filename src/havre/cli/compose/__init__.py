"""`havre compose`: one module per kind of verb; `scene` has what they share."""

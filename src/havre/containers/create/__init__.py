"""Creation of containers, from the request to the row."""

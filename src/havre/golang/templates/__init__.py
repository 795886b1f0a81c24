"""Go templates: text to tokens to a tree to output, with the functions that docker adds to Go's own."""

"""Go templates: tokens, tree, execution, and the functions that docker adds to Go's."""

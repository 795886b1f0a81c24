"""Output as docker formats it: tables, JSON lines, Go templates, sizes and times in words."""

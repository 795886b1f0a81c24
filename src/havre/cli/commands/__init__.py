"""The tables of commands, one module a group; a table imports nothing but the parser's values."""

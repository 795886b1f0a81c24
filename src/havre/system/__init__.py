"""Operations on all nouns: information on the host, disk usage, pruning."""

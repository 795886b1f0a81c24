"""Dockerfiles: words, ignore files, instructions, stages, steps, checks, `--change`. Pure."""

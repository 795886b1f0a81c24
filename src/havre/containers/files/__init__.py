"""The files of containers: copied, compared, exported, made an image."""

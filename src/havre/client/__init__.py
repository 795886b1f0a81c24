"""The API client that the command line uses; it speaks to dockerd as well."""

"""Compose: a set of containers on one host, described in files; created, started, watched and stopped together.

    files --yamlread--> trees --interpolate, schema, extends, include, merge, short forms--> model --project--> Project
    Project + the engine's state --plan--> steps --execute--> the engine, through `client` only

The model part is pure except for reading the user's files; the engine is accessed only through `havre.client`, so that
compose works with dockerd, too. It follows docker compose 2.26, with its labels, names and configuration hashes, so
that
both can manage the same project. `havre.cli.compose` imports it only when used.

Source: the Compose specification, https://github.com/compose-spec/compose-spec.
"""

COMPOSE_VERSION = "2.26.1"
"""The version of docker compose whose behaviour and labels are reproduced."""

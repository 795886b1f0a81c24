"""Compose: a set of containers on one host, described in files, created, started, watched and stopped as one.

    files --yamlread--> trees --interpolate, schema, extends, include, merge, short forms--> model --project--> Project
    Project + what the engine has --plan--> steps --execute--> the engine, through `client` alone

The model part is pure but for reading the user's files; everything about the engine goes through `havre.client`, so
that it works against dockerd, too. The program followed is docker compose 2.26; its labels, names and configuration
hashes are kept, so that both can manage a project in turn. Imported by `havre.cli.compose` only when used.

Source: the Compose specification, https://github.com/compose-spec/compose-spec.
"""

COMPOSE_VERSION = "2.26.1"
"""The docker compose whose behaviour and labels are followed."""

"""The table of `havre compose`, and the flags that stand before its commands."""

from __future__ import annotations

from havre.cli.parser import Command, Flag

FLAGS = (
    Flag("all-resources", "", "", "Keep networks, volumes ... that no service uses"),
    Flag("ansi", "", "string", 'When to print ANSI control characters ("never"|"always"|"auto")', "auto"),
    Flag("compatibility", "", "", "Name containers as docker-compose 1 did, with underscores"),
    Flag("dry-run", "", "", "Print the steps, and carry out none"),
    Flag("env-file", "", "list", "Read variables from this file, instead of .env"),
    Flag("file", "f", "list", "Compose files"),
    Flag("parallel", "", "int", "Greatest number of steps at a time, -1 for no limit", -1),
    Flag("profile", "", "list", "Profile to activate"),
    Flag("progress", "", "string", "Form of the progress (auto, tty, plain, quiet)", "auto"),
    Flag("project-directory", "", "string", "Folder that relative paths are joined to, instead of the first file's"),
    Flag("project-name", "p", "string", "Name of the project"),
)

_DRY = Flag("dry-run", "", "", "Print the steps, and carry out none")
_TIMEOUT = Flag("timeout", "t", "int", "Seconds to wait before a container is killed")
_INDEX = Flag("index", "", "int", "Number of the container, of several that a service has")
_SERVICES = "[OPTIONS] [SERVICE...]"
_FORM = Flag("format", "", "string", 'Form of the output ("table", "json")', "table")

_CREATION = (
    Flag("build", "", "", "Build images before containers are started"),
    _DRY,
    Flag("force-recreate", "", "", "Recreate containers although their configuration and image have not changed"),
    Flag("no-build", "", "", "Do not build an image, although it is missing"),
    Flag("no-recreate", "", "", "Do not recreate containers that exist"),
    Flag("pull", "", "string", 'When to pull images ("always"|"missing"|"never"|"build")', "policy"),
    Flag("quiet-pull", "", "", "Pull without showing the progress"),
    Flag("remove-orphans", "", "", "Remove containers of services that the files do not define"),
    Flag("scale", "", "list", "Number of containers of a service, as SERVICE=NUMBER"),
)

COMMANDS = (
    Command("config convert", _SERVICES, "Parse, resolve and print Compose files in canonical form",
            "compose.config:config", (0, None), (
        _DRY,
        Flag("format", "", "string", "Form of the output (yaml, json)", "yaml"),
        Flag("hash", "", "string", "Print the hashes of services' configurations, one per line"),
        Flag("images", "", "", "Print the names of images, one per line"),
        Flag("no-consistency", "", "", "Do not look for contradictions"),
        Flag("no-interpolate", "", "", "Leave variables as they are"),
        Flag("no-normalize", "", "", "Leave out what the files do not say"),
        Flag("no-path-resolution", "", "", "Leave paths relative"),
        Flag("output", "o", "string", "Write to a file", shown="to stdout"),
        Flag("profiles", "", "", "Print the names of profiles, one per line"),
        Flag("quiet", "q", "", "Only validate, print nothing"),
        Flag("services", "", "", "Print the names of services, one per line"),
        Flag("variables", "", "", "Print the variables that the files use, and their defaults"),
        Flag("volumes", "", "", "Print the names of volumes, one per line"),
    )),
)  # fmt: skip

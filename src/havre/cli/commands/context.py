"""The table of `havre context`."""

from __future__ import annotations

from havre.cli.commands.shared import force_flag, format_flag
from havre.cli.parser import Command
from havre.golang.flags import Flag

_ENDPOINT = """{}

The endpoint is given as --docker "KEY=VALUE,...":

  host              address of the daemon
  ca, cert, key     paths of PEM files for TLS
  skip-tls-verify   skip verification of the daemon's certificate
  from              name of a context whose endpoint is copied"""
_DESCRIPTION = Flag("description", "", "string", "Description of the context")
_DOCKER = Flag("docker", "", "stringToString", "Set the endpoint")

COMMANDS = (
    Command("create", "[OPTIONS] CONTEXT", "Create a context", "contexts:create", (1, 1), (
        _DESCRIPTION,
        _DOCKER,
        Flag("from", "", "string", "Create the context from this one"),
    ), long=_ENDPOINT.format("Create a context")),
    Command("export", "[OPTIONS] CONTEXT [FILE|-]", "Export a context to a tar archive FILE or to STDOUT",
            "contexts:export", (1, 2)),
    Command("import", "CONTEXT FILE|-", "Import a context from a tar or zip file", "contexts:import_", (2, 2)),
    Command("inspect", "[OPTIONS] [CONTEXT] [CONTEXT...]", "Display detailed information on one or more contexts",
            "contexts:inspect", (0, None), (format_flag("f", table=False),)),
    Command("ls list", "[OPTIONS]", "List contexts", "contexts:ls", (0, 0),
            (format_flag(), Flag("quiet", "q", "", "Only show context names"))),
    Command("rm remove", "CONTEXT [CONTEXT...]", "Remove one or more contexts", "contexts:rm", (1, None),
            (force_flag("Remove a context even if it is in use"),)),
    Command("show", "", "Print the name of the current context", "contexts:show"),
    Command("update", "[OPTIONS] CONTEXT", "Update a context", "contexts:update", (1, 1), (_DESCRIPTION, _DOCKER),
            long=_ENDPOINT.format("Update a context")),
    Command("use", "CONTEXT", "Set the current context", "contexts:use", (1, 1)),
)  # fmt: skip

"""Why a container could not be started, as texts: clients derive the exit codes 125, 126 and 127 from them.

    127   the command is not there     126   it cannot be run     anything else: 125 of `run`, 128 of the container

Source: docker/cli, cli/command/container/run.go (toStatusError); moby daemon/errors.go.
"""

from __future__ import annotations

ABSENT = ("executable file not found", "no such file or directory", "system cannot find the file specified")
REFUSED = ("permission denied", "is a directory")


def exit_code(message: str) -> int:
    """The exit code of `run` after this refusal of a start."""
    if any(text in message for text in ABSENT):
        return 127
    return 126 if any(text in message for text in REFUSED) else 125


def container_exit_code(message: str) -> int:
    """The exit code that the daemon gives to a container that could not be started."""
    text = message.lower()
    if any(wanted in text for wanted in REFUSED):
        return 126
    return 127 if any(wanted in text for wanted in (*ABSENT, "not a directory")) else 128

"""Translates an OCI runtime's errors, when a container or exec cannot start, into Docker's words. Pure.

Docker's command line derives its exit codes 125, 126 and 127 from these texts, so they are part of the API. Docker's
own come from runc; crun words the same errors differently, hence the table.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from havre.errors import Failed, HavreError, InvalidInput
from havre.wire.startfailures import ABSENT, REFUSED

CREATE = "failed to create task for container: failed to create shim task: OCI runtime create failed"
START = "failed to start container process: OCI runtime start failed"
EXEC = "OCI runtime exec failed: exec failed: unable to start container process"

_MISMATCHED = (
    ": Are you trying to mount a directory onto a file (or vice-versa)? "
    "Check if the specified host path exists and is the expected type"
)

# crun's words on the left; runc's words for the same error on the right.
_CRUN: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (
        re.compile(r"cannot find `([^`]*)` in \$PATH"),
        lambda m: f'exec: "{m[1]}": executable file not found in $PATH',
    ),
    (
        re.compile(r"executable file `([^/`][^`]*|)` not found(?: in \$PATH)?"),
        lambda m: f'exec: "{m[1]}": executable file not found in $PATH',
    ),
    (
        re.compile(r"executable file `([^`]*)` not found(?: in \$PATH)?"),
        lambda m: f'exec: "{m[1]}": stat {m[1]}: no such file or directory',
    ),
    (
        re.compile(r"the path `([^`]*)` exists but it is not executable"),
        # runc continues the search in $PATH for an executable one
        lambda m: f'exec: "{m[1]}": ' + ("permission denied" if "/" in m[1] else "executable file not found in $PATH"),
    ),
    (
        re.compile(r"the path `([^`]*)` is not a regular file"),
        lambda m: f'exec: "{m[1]}": is a directory: permission denied',
    ),
    (
        re.compile(r"chdir to `([^`]*)`: (.*)"),
        lambda m: f'chdir to cwd ("{m[1]}") set in config.json failed: {m[2][:1].lower()}{m[2][1:]}',
    ),
)
_LOGFMT = re.compile(r'level=error msg="((?:[^"\\]|\\.)*)"')
_RUNC_PREFIX = re.compile(
    r"^(?:runc (?:create|run|start|exec) failed: |exec failed: )?(?:unable to start container process: )?"
)


def translate(text: str) -> str:
    """The cause in runc's words, without prefixes, from runc's or crun's output."""
    text = text.strip()
    if (match := _LOGFMT.search(text)) is not None:
        text = match[1].replace('\\"', '"').replace("\\\\", "\\")
    text = text.removeprefix("Error: ").removeprefix("crun: ")
    for pattern, words in _CRUN:
        if (match := pattern.search(text)) is not None:
            return words(match)
    return _RUNC_PREFIX.sub("", text)


def create_failed(runtime: str, text: str) -> HavreError:
    """The error of a container that could not be created, as Docker words it."""
    return _error(f"{CREATE}: {runtime} create failed: unable to start container process: {translate(text)}: unknown")


def start_failed(text: str) -> HavreError:
    """The error of a created container that could not be started."""
    return _error(f"{START}: {translate(text)}: unknown")


def _error(message: str) -> HavreError:
    """An error caused by the container's own configuration is a 400, recognised by its text (moby daemon/errors.go)."""
    if "not a directory" in message.lower():
        return InvalidInput(message + _MISMATCHED)
    if any(reason in message.lower() for reason in (*ABSENT, *REFUSED)):
        return InvalidInput(message)
    return Failed(message)


def exec_failed(text: str) -> str:
    """The error of a process that could not be started in a running container."""
    return f"{EXEC}: {translate(text)}: unknown"

"""What an OCI runtime says when a container or exec cannot start, in Docker's words.

Docker's command line derives its exit codes 125, 126 and 127 from these texts, so they are part of the API. Docker's
own come from runc; crun words the same causes otherwise, hence the table. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable

CREATE = "failed to create task for container: failed to create shim task: OCI runtime create failed"
START = "failed to start container process: OCI runtime start failed"
EXEC = "OCI runtime exec failed: exec failed: unable to start container process"

# crun's words on the left; what runc says of the same on the right.
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
        lambda m: f'exec: "{m[1]}": permission denied',
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
    """The cause in runc's words, without prefixes: from runc's or crun's raw text."""
    text = text.strip()
    if (match := _LOGFMT.search(text)) is not None:
        text = match[1].replace('\\"', '"').replace("\\\\", "\\")
    text = text.removeprefix("Error: ").removeprefix("crun: ")
    for pattern, words in _CRUN:
        if (match := pattern.search(text)) is not None:
            return words(match)
    return _RUNC_PREFIX.sub("", text)


def create_failed(runtime: str, text: str) -> str:
    """Why a container could not be created, as Docker words it."""
    return f"{CREATE}: {runtime} create failed: unable to start container process: {translate(text)}: unknown"


def start_failed(text: str) -> str:
    """Why a created container could not be started."""
    return f"{START}: {translate(text)}: unknown"


def exec_failed(text: str) -> str:
    """Why a process could not be started in a running container."""
    return f"{EXEC}: {translate(text)}: unknown"

"""`havre logs`. On a terminal, the lines of the error stream have another colour."""

from __future__ import annotations

import time

from havre.cli.stream import Demultiplexer, Raw, write_all
from havre.cli.tty import OFF, RED, has_colours
from havre.cli.values import read_duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from havre.cli.session import Session
    from havre.client.api import Query
    from havre.golang.flags import Options


def timestamp(text: str) -> str:
    """A time for the API: a duration (`42m`) is subtracted from now, the daemon parses anything else."""
    try:
        span_ns = read_duration(text)
    except ValueError:
        return _from_date(text)
    return f"{time.time() - span_ns / 1e9:.9f}"


def _from_date(text: str) -> str:
    """Convert dates and times, local ones if they have no zone, to seconds since the epoch."""
    from havre.golang.times import parse_civil

    try:
        seconds, nanoseconds, offset_s = parse_civil(text)
    except ValueError:
        return text
    local_s = int(time.mktime((*time.gmtime(seconds)[:8], -1)))
    return f"{local_s if offset_s is None else seconds - offset_s}.{nanoseconds:09d}"


def _red(lines: bytes) -> bytes:
    """Lines of stderr in red; their own colours take precedence."""
    start, end = RED.encode(), OFF.encode()
    text = lines.removesuffix(b"\n")
    return start + text.replace(b"\n", end + b"\n" + start) + end + lines[len(text) :]


def logs(session: Session, options: Options, arguments: list[str]) -> int:
    """Print the logs of a container, its error stream on ours."""
    name = arguments[0]
    client = session.client
    tty = client.get(f"/containers/{name}/json")["Config"]["Tty"]
    query: Query = {"stdout": "1", "stderr": "1", "tail": options.tail, "wide": "1"}
    for flag in ("follow", "timestamps", "details"):
        if getattr(options, flag):
            query[flag] = "1"
    for flag in ("since", "until"):
        if getattr(options, flag):
            query[flag] = timestamp(getattr(options, flag))
    output: Raw | Demultiplexer = Raw() if tty else Demultiplexer()
    colour = has_colours(2)
    for data in client.call("GET", f"/containers/{name}/logs", query).chunks():
        for descriptor, part in output.feed(data):
            write_all(descriptor, _red(part) if descriptor == 2 and colour else part)
    return 0

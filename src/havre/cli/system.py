"""`havre events`, `havre daemon` and `havre system dial-stdio`."""

from __future__ import annotations

import posix
import sys
import time

from havre.cli.logs import timestamp
from havre.cli.parser import StatusError
from havre.cli.ps import render_filters
from havre.client.api import cannot_connect
from havre.client.autostart import daemon_program
from havre.client.connect import connect
from havre.golang.jsontext import encode
from havre.visible import Drawn, for_terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from havre.cli.session import Session
    from havre.client.api import Query
    from havre.golang.flags import Options


def events(session: Session, options: Options, arguments: list[str]) -> int:
    """Print events as they come."""
    query: Query = {}
    for name in ("since", "until"):
        if getattr(options, name):
            query[name] = timestamp(getattr(options, name))
    if options.filter:
        query["filters"] = render_filters(options.filter)
    form = options.format
    template = None
    if form not in ("", "json"):
        template = _template(form)
    client = session.client
    for event in client.messages(client.call("GET", "/events", query)):
        if template is not None:
            line = template.execute(_typed(event), shown=for_terminal())
        else:
            line = encode(event, escape_html=True) if form else event_text(event)
        sys.stdout.write(line + "\n" if template is None else Drawn(line + "\n"))
        sys.stdout.flush()
    return 0


def _template(form: str) -> Any:
    from havre.golang.templates.lex import TemplateError
    from havre.golang.templates.template import compile_template

    try:
        return compile_template(form)
    except TemplateError as error:
        raise StatusError(64, f"Error parsing format: {error}") from error


def _typed(event: dict[str, Any]) -> Any:
    from havre.golang.templates.gotypes import typed

    value = typed(event)
    value.defaults = {"ID": "", "Status": "", "From": "", "Time": 0, "TimeNano": 0, "Scope": ""}
    return value


def event_text(event: dict[str, Any]) -> str:
    """An event as a line: time, type, action, ID and attributes."""
    nanoseconds = event.get("timeNano") or event.get("time", 0) * 10**9
    seconds, rest = divmod(nanoseconds, 10**9)
    broken = time.localtime(seconds)
    zone = time.strftime("%z", broken)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", broken) + f".{rest:09d}"
    stamp += "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
    actor = event.get("Actor") or {}
    attributes = ", ".join(f"{key}={value}" for key, value in sorted((actor.get("Attributes") or {}).items()))
    text = f"{stamp} {event['Type']} {event['Action']} {actor.get('ID', '')}"
    return f"{text} ({attributes})" if attributes else text


def daemon(session: Session, options: Options, arguments: list[str]) -> int:
    """Execute the daemon."""
    program = daemon_program()
    try:
        posix.execv(program, [program, *arguments])
    except OSError as error:
        raise StatusError(1, f"cannot run the daemon {program}: {error.strerror}") from error


def dial_stdio(session: Session, options: Options, arguments: list[str]) -> int:
    """Connect standard input and output to the daemon's socket, for clients over ssh."""
    from havre.cli.stream import Copy

    endpoint = session.endpoint()
    try:
        stream = connect(endpoint)
    except OSError as error:
        raise cannot_connect(endpoint, error) from error
    Copy(stream, b"", tty=True, stdin=0).run()
    return 0

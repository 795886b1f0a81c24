"""`havre build`: a context streamed to the daemon, its steps shown, and the image's ID."""

from __future__ import annotations

import os
import posix
import sys

from havre.cli.parser import StatusError
from havre.cli.progress import Failure, show
from havre.cli.pull import check_name
from havre.client.auth import base64, find_auth
from havre.client.buildcontext import DirectoryContext, dockerfile_alone, is_tar
from havre.client.jsontext import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from havre.cli.parser import Options
    from havre.cli.session import Session
    from havre.client.api import Query

_CHUNK = 256 << 10
_REMOTE = ("http://", "https://", "git://", "git@", "ssh://", "github.com/")


def build(session: Session, options: Options, arguments: list[str]) -> int:
    """Build an image from a context: a directory, `-` or a URL. Raises StatusError, with the code of a failed RUN."""
    for tag in options.tag:
        check_name(tag)
    query = build_query(options)
    context, body = arguments[0], None
    if context.startswith(_REMOTE):
        query["remote"] = context
        query["dockerfile"] = options.file
    elif context == "-":
        body = _from_stdin(options)
        query["dockerfile"] = options.file
    else:
        directory = DirectoryContext(context, _read_stdin() if options.file == "-" else options.file)
        query["dockerfile"] = directory.dockerfile
        body = directory.tar()
    headers = {"Content-Type": "application/x-tar", "X-Registry-Config": _credentials(session)}
    if options.check:
        return _check(
            session.client.messages(session.client.call("POST", "/build/check", query, raw_body=body, headers=headers))
        )
    _write_id(options.iidfile, "")
    response = session.client.call("POST", "/build", query, raw_body=body, headers=headers)
    image = _watch(session.client.messages(response), quiet=options.quiet)
    _write_id(options.iidfile, image)
    return 0


def _check(messages: Iterator[dict[str, Any]]) -> int:
    """Show what the build checks found; 1 if that is anything. dockerd has no such call, and says so."""
    text = ""
    found: dict[str, Any] = {}
    for message in _checked(messages):
        text += message.get("stream", "")
        found = message.get("aux", found)
    count, error = found.get("Warnings", 0), found.get("Error", "")
    told = {0: "no warnings found.", 1: "1 warning has been found!"}.get(count, f"{count} warnings have been found!")
    print(f"Check complete, {told}\n{text}", end="")
    if error:
        raise StatusError(1, error)
    return 1 if count else 0


def build_query(options: Options) -> Query:
    """The query of POST /build but for what depends on the context."""
    query: Query = {"t": options.tag, "rm": "1", "version": "1"}
    texts = {
        "target": options.target,
        "platform": options.platform,
        "networkmode": options.network,
        "cpusetcpus": options.cpuset_cpus,
        "cpusetmems": options.cpuset_mems,
        "cgroupparent": options.cgroup_parent,
    }
    numbers = {
        "shmsize": options.shm_size,
        "memory": options.memory,
        "memswap": options.memory_swap,
        "cpushares": options.cpu_shares,
        "cpuquota": options.cpu_quota,
        "cpuperiod": options.cpu_period,
    }
    switches = {"nocache": options.no_cache, "pull": options.pull, "q": options.quiet}
    documents: dict[str, Any] = {
        "buildargs": {name: value for name, value in map(_build_arg, options.build_arg) if value is not None},
        "labels": dict(label.partition("=")[::2] for label in options.label),
        "extrahosts": options.add_host,
        "ulimits": options.ulimit,
    }
    query |= {name: text for name, text in texts.items() if text}
    query |= {name: str(number) for name, number in numbers.items() if number}
    query |= {name: "1" for name, on in switches.items() if on}
    query |= {name: encode(value) for name, value in documents.items() if value}
    return query


def _build_arg(text: str) -> tuple[str, str | None]:
    """A name alone takes its value from the environment."""
    name, equals, value = text.partition("=")
    return name, value if equals else os.environ.get(name)


def _from_stdin(options: Options) -> Iterator[bytes]:
    """A tar on standard input as it is; anything else is a Dockerfile."""
    if options.file == "-":
        raise StatusError(1, "invalid argument: can't use stdin for both build context and dockerfile")
    head = posix.read(0, _CHUNK)
    while len(head) < 512 and (more := posix.read(0, _CHUNK)):
        head += more
    if not is_tar(head):
        yield from dockerfile_alone(head + _read_stdin())
        return
    yield head
    while data := posix.read(0, _CHUNK):
        yield data


def _read_stdin() -> bytes:
    return sys.stdin.buffer.read()


def _credentials(session: Session) -> str:
    """X-Registry-Config: what is known of every registry."""
    config = session.config
    known = {server: find_auth(config, server) for server in config.values.get("auths") or {}}
    return base64(encode(known).encode(), url_safe=True)


def _watch(messages: Iterator[dict[str, Any]], *, quiet: bool) -> str:
    """Show the build; the image's ID. Raises StatusError."""
    found: list[str] = []

    def note(message: dict[str, Any]) -> dict[str, Any]:
        if isinstance(message.get("aux"), dict) and "ID" in message["aux"]:
            found.append(message["aux"]["ID"])
        return message

    try:
        if not quiet:
            show(map(note, messages), 1)
            return found[-1] if found else ""
        text = "".join(str(note(message).get("stream", "")) for message in _checked(messages))
    except Failure as failure:
        raise StatusError(failure.code or 1, failure.message) from failure
    print(text, end="")
    return text.strip()


def _checked(messages: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for message in messages:
        if "errorDetail" in message:
            show([message], 2)
        yield message


def _write_id(path: str, image: str) -> None:
    """The ID for `--iidfile`; an earlier build's goes before the build begins."""
    if not path:
        return
    if image:
        with open(path, "w") as file:
            file.write(image)
    elif os.path.exists(path):
        os.unlink(path)

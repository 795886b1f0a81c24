"""Tar archives of images and containers: save, load, import, export; also commit and diff."""

from __future__ import annotations

import posix
import sys

from havre.cli.parser import StatusError
from havre.cli.platforms import platform_parameters
from havre.cli.progress import show
from havre.cli.stream import write_all
from havre.client.config import exists
from havre.oci.names import split_tag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from havre.cli.session import Session
    from havre.client.api import Query
    from havre.golang.flags import Options

_CHUNK = 256 << 10


def read_chunks(descriptor: int) -> Iterator[bytes]:
    """Yield the data of a descriptor until its end."""
    while data := posix.read(descriptor, _CHUNK):
        yield data


def open_input(path: str) -> int:
    """A descriptor to read a file. Raises StatusError."""
    try:
        return posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError as error:
        raise StatusError(1, f"open {path}: {(error.strerror or str(error)).lower()}") from error


def write_output(pieces: Iterable[bytes], path: str, verb: str) -> None:
    """Write bytes to a file (atomically) or to standard output. Raises StatusError."""
    if not path:
        for data in pieces:
            write_all(1, data)
        return
    temporary = f"{path}.{posix.getpid()}"
    try:
        descriptor = posix.open(temporary, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC, 0o600)
        try:
            for data in pieces:
                write_all(descriptor, data)
        except BaseException:
            posix.unlink(temporary)
            raise
        finally:
            posix.close(descriptor)
        posix.rename(temporary, path)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise StatusError(1, f"failed to {verb}: open {path}: {reason}") from error


def check_output(path: str, verb: str) -> None:
    """Reject a terminal, or a directory that does not exist, as the output. Raises StatusError."""
    if not path and posix.isatty(1):
        raise StatusError(1, "cowardly refusing to save to a terminal. Use the -o flag or redirect")
    directory = path.rpartition("/")[0] if "/" in path else "."
    if not exists(directory or "/"):
        raise StatusError(1, f'failed to {verb}: invalid output path: directory "{directory}" does not exist')


def save(session: Session, options: Options, arguments: list[str]) -> int:
    """Save images to a tar archive."""
    check_output(options.output, "save image")
    platforms = platform_parameters(session.client, options.platform, "1.48")
    response = session.client.call("GET", "/images/get", {"names": arguments, "platform": platforms})
    write_output(response.chunks(), options.output, "save image")
    return 0


def load(session: Session, options: Options, arguments: list[str]) -> int:
    """Load images from a tar archive."""
    if not options.input and posix.isatty(0):
        raise StatusError(1, "requested load from stdin, but stdin is empty")
    source = open_input(options.input) if options.input else 0
    quiet = options.quiet or not posix.isatty(1)
    response = session.client.call(
        "POST",
        "/images/load",
        {"quiet": "1" if quiet else "0", "platform": platform_parameters(session.client, options.platform, "1.48")},
        raw_body=read_chunks(source),
        headers={"Content-Type": "application/x-tar"},
    )
    show(session.client.messages(response), 1)
    return 0


def import_(session: Session, options: Options, arguments: list[str]) -> int:
    """Create an image from a tarball."""
    source, *names = arguments
    query: Query = {"fromSrc": source if "://" in source else "-"}
    if names:
        repository, tag = split_tag(names[0])
        query["repo"] = repository
        if tag:
            query["tag"] = tag
    if options.message:
        query["message"] = options.message
    if options.change:
        query["changes"] = options.change
    if options.platform:
        query["platform"] = options.platform
    body = None
    if "://" not in source:
        body = read_chunks(0 if source == "-" else open_input(source))
    response = session.client.call(
        "POST", "/images/create", query, raw_body=body, headers={"Content-Type": "text/plain"}
    )
    show(session.client.messages(response), 1)
    return 0


def export(session: Session, options: Options, arguments: list[str]) -> int:
    """Write a container's file system as a tar archive."""
    check_output(options.output, "export container")
    response = session.client.call("GET", f"/containers/{arguments[0]}/export")
    write_output(response.chunks(), options.output, "export container")
    return 0


def commit(session: Session, options: Options, arguments: list[str]) -> int:
    """Create an image from a container."""
    container, *names = arguments
    if {"pause", "no_pause"} <= options.given:
        raise StatusError(1, "conflicting options: --no-pause and --pause cannot be used together")
    query: Query = {"container": container, "pause": "1" if options.pause and "no_pause" not in options.given else "0"}
    if names:
        repository, tag = split_tag(names[0])
        query |= {"repo": repository, "tag": tag}
    query |= {"author": options.author, "comment": options.message}
    if options.change:
        query["changes"] = options.change
    print(session.client.post("/commit", query, {})["Id"])
    return 0


def diff(session: Session, options: Options, arguments: list[str]) -> int:
    """Show the changes in a container's file system."""
    if not arguments[0]:
        raise StatusError(1, "Container name cannot be empty")
    changes = session.client.get(f"/containers/{arguments[0]}/changes") or []
    sys.stdout.write("".join(f"{'CAD'[change['Kind']]} {change['Path']}\n" for change in changes))
    return 0

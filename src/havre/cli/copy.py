"""`havre cp`: copies files and directories between a container and the local file system.

    source       destination            is copied as
    file, dir    an existing directory  DIRECTORY/NAME
    dir/.        an existing directory  its content, into DIRECTORY
    file, dir    a name that does not exist    that name (its parent must exist)
    file         an existing file       that file
    dir          an existing file       an error

An archive from a container is hostile: no name or link in it may lead outside of the destination.
"""

from __future__ import annotations

import os
import posixpath
import stat

from havre.cli.archive import read_chunks
from havre.cli.parser import StatusError
from havre.cli.stream import write_all
from havre.client.http import FilePart
from havre.client.untar import renaming, untar
from havre.errors import HavreError, InvalidInput, NotFound
from havre.golang.jsontext import decode
from havre.golang.texts import human_size
from havre.tar.headers import FLAGS, end, header, padding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, TypeAlias

    from havre.cli.session import Session
    from havre.client.http import Response
    from havre.golang.flags import Options

    Piece: TypeAlias = bytes | FilePart

_GO_DIRECTORY = 1 << 31
_GO_SYMLINK = 1 << 27
_CHUNK = 256 << 10


def split_path(text: str) -> tuple[str, str]:
    """The container and path of `CONTAINER:PATH`; a path that is clearly local has no container."""
    if text.startswith(("/", "./", "../")) or text in (".", ".."):
        return "", text
    container, colon, path = text.partition(":")
    if not colon or container.startswith("."):
        return "", text
    return container, path


def cp(session: Session, options: Options, arguments: list[str]) -> int:
    """Copy in either direction."""
    (source, source_path), (target, target_path) = (split_path(argument) for argument in arguments)
    if source and target:
        raise StatusError(1, "copying between containers is not supported")
    if source:
        size = _download(session, options, source, source_path, target_path)
        where = target_path
    elif target:
        size = _upload(session, options, target, source_path, target_path)
        where = f"{target}:{target_path}"
    else:
        raise StatusError(1, "must specify at least one container source")
    if not options.quiet and os.isatty(2) and target_path != "-":
        session.warn(f"Successfully copied {human_size(size, 3)} to {where}")
    return 0


def _path_stat(response: Response) -> dict[str, Any]:
    from binascii import a2b_base64

    value: dict[str, Any] = decode(a2b_base64(response.headers["x-docker-container-path-stat"]))
    return value


def _stat_in(session: Session, container: str, path: str) -> dict[str, Any]:
    response = session.new_client().call("HEAD", f"/containers/{container}/archive", {"path": path})
    return _path_stat(response)


def _download(session: Session, options: Options, container: str, source: str, target: str) -> int:
    if options.follow_link:
        try:
            found = _stat_in(session, container, source)
        except HavreError:
            found = {"mode": 0}  # the request for its content reports the error
        if found["mode"] & _GO_SYMLINK:
            source = posixpath.join(posixpath.dirname(source), found["linkTarget"])
    response = session.client.call("GET", f"/containers/{container}/archive", {"path": source})
    if target == "-":
        for data in response.chunks():
            write_all(1, data)
        return 0
    is_directory = bool(_path_stat(response)["mode"] & _GO_DIRECTORY)
    directory, name = _local_target(source, is_directory, target)
    try:
        return untar(response.chunks(), directory, renaming(name), keep_owner=options.archive)
    except (InvalidInput, OSError) as error:
        raise StatusError(1, f"cannot write {target}: {error}") from error


def _local_target(source: str, is_directory: bool, target: str) -> tuple[str, str | None]:
    """The directory to extract into, and the name that replaces the archive's topmost one (None: keep it)."""
    if os.path.isdir(target):
        return target, None
    if os.path.lexists(target):
        if is_directory:
            raise StatusError(1, "cannot copy directory")
    elif target.endswith("/") and not is_directory:
        raise StatusError(1, "no such directory")
    directory, name = os.path.split(target.rstrip("/"))
    if not os.path.isdir(directory or "."):
        raise StatusError(1, f'invalid output path: directory "{os.path.abspath(directory or ".")}" does not exist')
    return directory or ".", name


def _upload(session: Session, options: Options, container: str, source: str, target: str) -> int:
    if source != "-" and not os.path.lexists(source.rstrip("/") or "/"):
        raise StatusError(1, f"lstat {os.path.abspath(source)}: no such file or directory")
    found = _target_stat(session, container, target)
    if found is not None and found["mode"] & _GO_SYMLINK:
        target = posixpath.join(posixpath.dirname(target), found["linkTarget"])
        found = _target_stat(session, container, target)
    is_directory = found is not None and bool(found["mode"] & _GO_DIRECTORY)
    if source == "-":
        if not is_directory:
            raise StatusError(1, f'destination "{container}:{target}" must be a directory')
        directory = target
        body: Iterator[Piece] = read_chunks(0)
    else:
        path = os.path.realpath(source) if options.follow_link else source
        name = None if is_directory else posixpath.basename(target.rstrip("/"))
        directory = target if is_directory else posixpath.dirname(target.rstrip("/")) or "/"
        _check_target(path, target, found)
        body = tar_chunks(path, name)
    query: dict[str, str | list[str]] = {"path": directory, "noOverwriteDirNonDir": "true"}
    if options.archive:
        query["copyUIDGID"] = "true"
    sent = _Sent(body)
    headers = {"Content-Type": "application/x-tar"}
    session.client.call("PUT", f"/containers/{container}/archive", query, raw_body=sent, headers=headers).read()
    return sent.count


def _target_stat(session: Session, container: str, target: str) -> dict[str, Any] | None:
    try:
        return _stat_in(session, container, target)
    except NotFound:
        session.client.get(f"/containers/{container}/json")  # reports a container that does not exist
        return None


def _check_target(source: str, target: str, found: dict[str, Any] | None) -> None:
    source_is_directory = os.path.isdir(source) and (not os.path.islink(source) or source.endswith("/"))
    if found is not None and source_is_directory and not found["mode"] & _GO_DIRECTORY:
        raise StatusError(1, "cannot copy directory")
    if found is None and not source_is_directory and target.endswith("/"):
        raise StatusError(1, "no such directory")


class _Sent:
    """An iterator of chunks that counts bytes."""

    def __init__(self, chunks: Iterator[Piece]) -> None:
        self._chunks = chunks
        self.count = 0

    def __iter__(self) -> Iterator[Piece]:
        for data in self._chunks:
            self.count += len(data)
            yield data


def tar_chunks(source: str, name: str | None) -> Iterator[Piece]:
    """A tar archive of `source`, generated while reading; `name` replaces its own name, `DIR/.` is the content of
    DIR."""
    content_only = name is None and (source.endswith("/.") or source == ".")
    top = "." if content_only else name or os.path.basename(os.path.abspath(source))
    root = source.rstrip("/") if source.endswith("/") and len(source) > 1 else source
    if source.endswith("/"):
        root = os.path.realpath(root)
    return _gathered(_pieces(root, top))


def _pieces(root: str, top: str) -> Iterator[Piece]:
    yield from _entry(root, top)
    if os.path.isdir(root) and not os.path.islink(root):
        for directory, folders, files in os.walk(root):
            inner = top + directory[len(root) :]
            for entry in sorted([*folders, *files]):
                yield from _entry(os.path.join(directory, entry), f"{inner}/{entry}")
    yield end(0)


def _gathered(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """Merge pieces to a size worth a system call and an HTTP chunk."""
    gathered, size = list[bytes](), 0
    for piece in pieces:
        if isinstance(piece, FilePart):
            yield b"".join(gathered)
            gathered, size = [], 0
            yield piece
            continue
        gathered.append(piece)
        size += len(piece)
        if size >= _CHUNK:
            yield b"".join(gathered)
            gathered, size = [], 0
    yield b"".join(gathered)


def _entry(path: str, name: str) -> Iterator[Piece]:
    """A member: header and content. Hard links become separate files, sockets are skipped."""
    status = os.lstat(path)
    kind = stat.S_IFMT(status.st_mode)
    if kind not in FLAGS:
        return
    size = status.st_size if kind == stat.S_IFREG else 0
    yield header(
        os.fsencode(name) + (b"/" if kind == stat.S_IFDIR else b""),
        FLAGS[kind],
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        size=size,
        mtime=int(status.st_mtime),
        link=os.fsencode(os.readlink(path)) if kind == stat.S_IFLNK else b"",
        device=(os.major(status.st_rdev), os.minor(status.st_rdev)),
    )
    if not size:
        return
    with open(path, "rb", buffering=0) as file:
        if size >= _CHUNK:
            yield FilePart(file.fileno(), size)
        else:
            yield file.read(size).ljust(size, b"\0")  # padded, in case the file shrank meanwhile
    yield padding(size)

"""`--output`: delivers a build's result.

    DIRECTORY, type=local,dest=DIRECTORY     its files
    -, type=tar,dest=FILE                    its files as a tar
    platform-split=true                      in a directory named after the platform; always, for several platforms
    type=docker,dest=FILE                    the image as an archive for `load`
    type=oci,dest=FILE                       the image as an OCI layout
    tar=false                                (of archives) unpacked in a directory
    type=image, type=docker                  the image stays in the daemon, as without --output; push=true pushes it
    type=registry                            type=image,push=true

Files are copied from a container that is created from the image and never started, which works with any daemon
(dockerd's export leaves such a container mounted). havre's daemon writes archives in any form; from dockerd they are
those of `save`. An image that is only exported is not tagged in the daemon, and is removed afterwards.

Source: docker/buildx, "--output".
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager

from havre.cli.parser import StatusError
from havre.client.buildsend import takes_lists
from havre.client.untar import untar
from havre.errors import InvalidInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from havre.client.api import Client
    from havre.tar.reader import Entry

_KINDS = ("local", "tar", "docker", "oci", "image", "registry")
_ARCHIVES = ("docker", "oci")
_SETTINGS = ("compression", "annotation")  # of archives, for the daemon
# Files that engines create in every container.
_MADE = frozenset({".dockerenv", "dev", "proc", "sys", "etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab"})


class Output:
    """One `--output`; `dest` is a path, "-" for standard output, "" for none; `settings` are passed to the daemon.

    `unpacked`: an archive unpacked in a directory; `push`: push the image; `split`: `platform-split`.
    """

    def __init__(self, kind: str, dest: str, name: str = "", settings: dict[str, str] | None = None) -> None:
        self.kind, self.dest, self.name, self.settings = kind, dest, name, settings or {}
        self.unpacked = self.push = False
        self.split = ""


def parse_outputs(texts: Iterable[str]) -> list[Output]:
    """The values of `--output`. Raises StatusError."""
    return [_parse(text) for text in texts]


def _parse(text: str) -> Output:
    if text == "-":
        return Output("tar", "-")
    if "=" not in text:
        return Output("local", text)
    fields = dict(field.partition("=")[::2] for field in text.split(","))
    kind, dest, name = fields.pop("type", ""), fields.pop("dest", ""), fields.pop("name", "")
    if kind not in _KINDS:
        raise StatusError(1, f"the output type {kind!r} is not supported: one of {', '.join(_KINDS)} is")
    output = Output(kind, dest, name)
    output.unpacked = kind in _ARCHIVES and fields.pop("tar", "true") == "false"
    output.split = fields.pop("platform-split", "") if kind in ("local", "tar") else ""
    output.push = kind == "registry" or (kind == "image" and fields.pop("push", "false") == "true")
    if kind in _ARCHIVES:
        output.settings = {key: fields.pop(key) for key in list(fields) if key.startswith(_SETTINGS)}
    if fields:
        raise StatusError(1, f"the output's setting {next(iter(fields))!r} is not supported for the type {kind}")
    if not dest and (kind == "local" or output.unpacked):
        raise StatusError(1, f"dest is required for an output of type {kind}")
    if not dest and kind in ("tar", "oci"):
        output.dest = "-"
    if output.dest == "-" and sys.stdout.isatty():
        raise StatusError(1, "a tar is not written to a terminal: give dest=FILE")
    return output


def annotate(texts: Iterable[str], outputs: list[Output], *, pushed: bool) -> None:
    """Apply `--annotation` to the archives: `KEY=VALUE`, `manifest[linux/arm64]:KEY=VALUE`, `index:KEY=VALUE`.

    Raises StatusError for other outputs: images are stored, and pushed, without annotations.
    """
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise StatusError(1, f"invalid annotation {text!r}: KEY=VALUE is expected")
        if pushed or not outputs or any(output.kind not in _ARCHIVES or not output.dest for output in outputs):
            raise StatusError(1, "--annotation is for outputs of type=oci and type=docker,dest=FILE; "
                                 "docker buildx build --push pushes annotated images")  # fmt: skip
        level, colon, key = name.partition(":")
        kind, bracket, platform = level.partition("[")
        if colon and kind in ("manifest", "index", "manifest-descriptor", "index-descriptor"):
            setting = f"annotation-{kind}{bracket}{platform}.{key}"
        else:
            setting = f"annotation.{name}"
        for output in outputs:
            output.settings[setting] = value


def deliver(client: Client, built: dict[str, Any], outputs: list[Output], names: list[str]) -> str:
    """Write the image's files or archive, and remove the image if it has no name.

    `built` is the daemon's description of the result. Files for several platforms are in directories such as
    `linux_arm64`.
    Returns the digest of the last archive's manifest, "" without one. Raises StatusError for errors of the client's
    disk.
    """
    wanted = [output for output in outputs if output.dest]
    images = {each["ID"] for each in (built, *(built.get("Platforms") or {}).values())}
    digest = ""
    try:
        for output in wanted:
            if output.kind in _ARCHIVES:
                own = [output.name] if output.name else []
                digest = _archive(client, built, output, [*names, *own])
            elif output.kind == "local":
                for folder, image in _folders(client, built, output).items():
                    with _files(client, image) as pieces:
                        _unpack(pieces, os.path.join(output.dest, folder), _file_of)
            else:
                _copy(client, _folders(client, built, output), output.dest)
    except OSError as error:
        raise StatusError(1, f"failed to write {error.filename or output.dest}: {error.strerror or error}") from error
    finally:
        for image in images if wanted else ():
            if not client.get(f"/images/{image}/json").get("RepoTags"):
                client.delete(f"/images/{image}")
    return digest


def _folders(client: Client, built: dict[str, Any], output: Output) -> dict[str, str]:
    """The images whose files are exported, by target directory; "" is the output's own."""
    platforms: dict[str, Any] = built.get("Platforms") or {}
    if platforms and output.split == "false":
        raise StatusError(1, "platform-split=false is not supported for several platforms: build them one by one")
    if not platforms and output.split == "true":
        found = client.get(f"/images/{built['ID']}/json")
        name = "_".join(filter(None, (found["Os"], found["Architecture"], found.get("Variant"))))
        return {name: built["ID"]}
    return {text.replace("/", "_"): each["ID"] for text, each in platforms.items()} or {"": built["ID"]}


def _archive(client: Client, built: dict[str, Any], output: Output, names: list[str]) -> str:
    image = built["ID"]
    if not takes_lists(client):
        if output.kind == "oci" or output.settings:
            raise StatusError(1, "an output of type oci needs havre's daemon; this one writes type=docker,dest=FILE")
        _put(output, client.call("GET", "/images/get", {"names": names or [image]}).chunks())
        return ""
    others = [each for each in (built.get("Platforms") or {}).values() if each["ID"] != image]
    asked = {
        "Image": image,
        "Others": [{"Image": each["ID"], "Predicates": each["Predicates"]} for each in others],
        "Names": names,
        "Type": output.kind,
        "Attributes": output.settings,
        "Predicates": built.get("Predicates") or [],
    }
    response = client.call("POST", "/build/export", body=asked)
    _put(output, response.chunks())
    return response.headers.get("docker-content-digest", "")


def _put(output: Output, archive: Iterator[bytes]) -> None:
    if output.unpacked:
        unpack_layout(archive, output.dest)
    else:
        _write(output.dest, archive)


def unpack_layout(pieces: Iterator[bytes], directory: str) -> None:
    """Unpack an OCI layout into a directory; its index comes last and replaces an earlier one. Raises OSError."""
    _unpack(pieces, directory, lambda entry: entry)


@contextmanager
def _files(client: Client, image: str) -> Iterator[Iterator[bytes]]:
    """An image's files as a tar, for the duration of a block."""
    container = client.post("/containers/create", None, {"Image": image, "Cmd": ["none"]})["Id"]
    try:
        yield client.call("GET", f"/containers/{container}/archive", {"path": "/"}).chunks()
    finally:
        client.delete(f"/containers/{container}")


def _wanted(entry: Entry) -> Entry | None:
    """The member; None if it is an empty file that every engine creates."""
    name = os.fsdecode(entry.path)
    made = name in _MADE and not entry.size
    return None if not name or made or name.startswith(("dev/", "proc/", "sys/")) else entry


def _file_of(entry: Entry) -> Entry | None:
    """The member; None for devices and FIFOs, too."""
    return _wanted(entry) if entry.kind in ("file", "dir", "symlink", "hardlink") else None


def _unpack(pieces: Iterator[bytes], dest: str, place: Callable[[Entry], Entry | None]) -> None:
    os.makedirs(dest, exist_ok=True)
    try:
        untar(pieces, dest, place, keep_owner=os.geteuid() == 0)
    except InvalidInput as error:
        raise StatusError(1, f"the image's files do not fit into a directory: {error}") from error


def _copy(client: Client, images: dict[str, str], dest: str) -> None:
    """Write the images' files as one tar, each image's in its directory."""
    from havre.tar.reader import read_members
    from havre.tar.writer import TarWriter

    with open(1 if dest == "-" else dest, "wb", closefd=dest != "-") as out:
        copy = TarWriter(out)
        for folder, image in images.items():
            above = os.fsencode(folder) + b"/" if folder else b""
            with _files(client, image) as pieces:
                for entry, content in read_members(pieces):
                    if _wanted(entry) is not None:
                        link = above + entry.link if entry.kind == "hardlink" else entry.link
                        copy.put(entry._replace(path=above + entry.path, link=link), content)
        copy.finish()


def _write(dest: str, pieces: Iterator[bytes]) -> None:
    with open(1 if dest == "-" else dest, "wb", closefd=dest != "-") as file:
        for piece in pieces:
            file.write(piece)

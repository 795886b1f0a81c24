"""Files of containers: archive in and out, changes, export, commit.

Source: Docker Engine API, "ContainerArchive", "PutContainerArchive", "ContainerArchiveInfo", "ContainerChanges",
"ContainerExport", "ImageCommit". Modes of a path's description are Go's FileMode.
"""

from __future__ import annotations

import base64
import stat

import msgspec
from aiohttp import web

from havre.api.call import Call
from havre.api.pour import pour
from havre.api.router import Router
from havre.containers.files.commit import CommitOptions
from havre.containers.files.copying import PathStat
from havre.errors import InvalidInput
from havre.wire.config import Config
from havre.wire.times import rfc3339

_TAR = "application/x-tar"
_OCTETS = "application/octet-stream"
_STAT_HEADER = "X-Docker-Container-Path-Stat"
_KINDS = {"C": 0, "A": 1, "D": 2}
# Go's os.FileMode: the file types and the three bits that differ from stat(2).
_GO_KINDS = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
}
_GO_BITS = {stat.S_ISUID: 1 << 23, stat.S_ISGID: 1 << 22, stat.S_ISVTX: 1 << 20}


def go_mode(mode: int) -> int:
    """A mode of stat(2) as Go's os.FileMode."""
    bits = sum(go for unix, go in _GO_BITS.items() if mode & unix)
    return _GO_KINDS.get(stat.S_IFMT(mode), 0) | bits | mode & 0o777


def encode_stat(found: PathStat) -> str:
    """The header with a path's attributes: JSON in base64."""
    value = {
        "name": found.name,
        "size": found.size,
        "mode": go_mode(found.mode),
        "mtime": rfc3339(found.mtime_ns),
        "linkTarget": found.link_target,
    }
    return base64.b64encode(msgspec.json.encode(value)).decode()


def _path(call: Call) -> str:
    path = call.text("path")
    if not path:
        raise InvalidInput("bad parameter: pathcannot be empty")
    return path


async def _head(call: Call) -> web.StreamResponse:
    found = await call.services.files.stat(call.name, _path(call))
    call.headers[_STAT_HEADER] = encode_stat(found)
    return call.nothing(200)


async def _get(call: Call) -> web.StreamResponse:
    async with call.services.files.reading(call.name, _path(call)) as archive:
        call.headers[_STAT_HEADER] = encode_stat(archive.stat)
        response = await call.stream(_TAR)
        await pour(call.request, response, archive.stream)
    return response


async def _put(call: Call) -> web.StreamResponse:
    await call.services.files.write(
        call.name,
        _path(call),
        call.feed,
        as_user=call.flag("copyUIDGID"),
        no_overwrite=call.flag("noOverwriteDirNonDir"),
    )
    return call.nothing(200)


async def _changes(call: Call) -> web.StreamResponse:
    changes = await call.services.files.changes(call.name)
    return call.json([{"Kind": _KINDS[change.kind], "Path": change.path} for change in changes] or None)


async def _export(call: Call) -> web.StreamResponse:
    async with call.services.files.exporting(call.name) as stream:
        response = await call.stream(_OCTETS)
        await pour(call.request, response, stream)
    return response


async def _commit(call: Call) -> web.StreamResponse:
    body = await call.optional_body(Config) if call.request.body_exists else None
    options = CommitOptions(
        repository=call.text("repo"),
        tag=call.text("tag"),
        author=call.text("author"),
        comment=call.text("comment"),
        pause=call.flag("pause", True),
        changes=call.query.getall("changes", []),
        config=body if body != Config() else None,
    )
    return call.json({"Id": await call.settle(call.services.files.commit(call.text("container"), options))}, 201)


def register(router: Router) -> None:
    """Add the routes of files."""
    router.add("HEAD", "/containers/{name}/archive", _head)
    router.add("GET", "/containers/{name}/archive", _get)
    router.add("PUT", "/containers/{name}/archive", _put)
    router.add("GET", "/containers/{name}/changes", _changes)
    router.add("GET", "/containers/{name}/export", _export)
    router.add("POST", "/commit", _commit)

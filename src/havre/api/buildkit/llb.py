"""Parses low-level build definitions (LLB) of a single source. Pure.

    SourceOp git://host/repo.git#REF:DIR  {git.fullurl: ...}                        --read_source--> Source(url)
    SourceOp https://host/file  {http.filename: F}                                  --> Source(url, filename=F)
    the same, followed by FileOp: copy F to /, unpacked if it is an archive         --> Source(..., unpacked=True)

buildx asks for these beside a build: the policy file of a context that is a URL, a Dockerfile at a URL. All other
graphs are refused. A definition is a list of encoded operations that refer to each other by digest; the last one
names the result.

Source: moby/buildkit solver/pb/ops.proto, attr.go, caps.go; client/llb/source.go; docker/buildx build/opt.go,
url.go.

Why: docs/decisions/400.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from havre.api.buildkit.messages import Op, SourceOp
from havre.api.buildkit.protobuf import decode
from havre.builds.gitsource import HEADER, TOKEN, parse_git_address
from havre.errors import HavreError, InvalidInput, Unsupported
from havre.oci.digest import digest_of

CAPABILITIES = (
    "source.git", "source.git.keepgitdir", "source.git.fullurl", "source.git.knownsshhosts", "source.git.mountsshsock",
    "source.git.checksum", "source.http", "source.http.checksum", "file.base",
)  # fmt: skip
_FILENAME = "download"
# Attributes of a git source: a client's known hosts are ignored in favour of this host's.
_GIT = {
    "git.authtokensecret": (TOKEN,),
    "git.authheadersecret": (HEADER,),
    "git.mountsshsock": ("default",),
    "git.keepgitdir": ("true",),
}
_FREE = ("git.fullurl", "git.checksum", "git.knownsshhosts", "http.filename", "http.checksum")


@dataclass(frozen=True)
class Source:
    """A source of files: a git repository (`url` with its fragment), or one file by HTTP named `filename`.

    An HTTP archive is `unpacked` if requested.
    """

    url: str
    filename: str = ""
    checksum: str = ""
    keep_git: bool = False
    unpacked: bool = False


def read_source(definition: Sequence[bytes]) -> Source:
    """The source of a definition; `Unsupported` for other graphs, `InvalidInput` for an empty one."""
    try:
        ops: dict[str, Op] = {digest_of(data): decode(Op, data) for data in definition}
        result = decode(Op, definition[-1])
    except (ValueError, IndexError) as error:
        raise InvalidInput(f"malformed low-level build definition: {error}") from error
    if result.source is not None or result.file is not None:
        raise InvalidInput("malformed low-level build definition: it has no result")
    op = _input(result, ops)
    if op.file is None:
        return _source(op)
    if len(op.file.actions) != 1 or (copy := op.file.actions[0].copy) is None or not copy.unpack:
        raise _no_graphs()
    source = _source(_input(op, ops))
    if not source.filename or copy.src.lstrip("/") != source.filename or copy.dest != "/":
        raise _no_graphs()
    return Source(source.url, source.filename, source.checksum, unpacked=True)


def _input(op: Op, ops: Mapping[str, Op]) -> Op:
    """The single input of an operation."""
    if len(op.inputs) != 1:
        raise _no_graphs()
    found = ops.get(op.inputs[0].digest)
    if found is None:
        raise InvalidInput("malformed low-level build definition: an operation is missing")
    return found


def _source(op: Op) -> Source:
    if op.source is None:
        raise _no_graphs()
    for name, value in op.source.attrs.items():
        if name not in _FREE and value not in _GIT.get(name, ()):
            raise Unsupported(f"{name}={value} of a source is not supported")
    return _git(op.source) if op.source.identifier.startswith("git://") else _http(op.source)


def _git(op: SourceOp) -> Source:
    address, _, fragment = op.identifier.partition("#")
    url = op.attrs.get("git.fullurl") or address
    url += f"#{fragment}" if fragment else ""
    if parse_git_address(url) is None:
        raise Unsupported(f"the git repository {op.identifier} is not supported", "its address must end in .git")
    return Source(url, checksum=op.attrs.get("git.checksum", ""), keep_git=op.attrs.get("git.keepgitdir") == "true")


def _http(op: SourceOp) -> Source:
    if not op.identifier.startswith(("http://", "https://")):
        raise _no_graphs()
    filename = op.attrs.get("http.filename") or posixpath.basename(op.identifier) or _FILENAME
    if "/" in filename or "\0" in filename or filename in (".", ".."):
        raise InvalidInput(f"invalid http.filename: {filename!r}")
    return Source(op.identifier, filename, op.attrs.get("http.checksum", ""))


def _no_graphs() -> HavreError:
    return Unsupported(
        "low-level build definitions are not supported, but for a git repository's or a URL's files",
        "build a Dockerfile",
    )

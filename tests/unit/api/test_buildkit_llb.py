"""Definitions of one source, as buildx marshals them, and graphs that are more."""

from __future__ import annotations

import pytest

from havre.api.buildkit.llb import Source, read_source
from havre.api.buildkit.messages import FileAction, FileCopy, FileOp, Op, OpInput, SourceOp
from havre.api.buildkit.protobuf import encode
from havre.errors import HavreError
from havre.oci.digest import digest_of


def definition(*ops: Op) -> list[bytes]:
    """Operations, each of which reads the one before it, and the result of the last."""
    marshalled: list[bytes] = []
    for op in (*ops, Op()):
        op.inputs = [OpInput(digest_of(marshalled[-1]))] if marshalled else []
        marshalled.append(encode(op))
    return marshalled


def source(identifier: str, **attrs: str) -> Op:
    return Op(source=SourceOp(identifier, {name.replace("_", "."): value for name, value in attrs.items()}))


def unpacking(name: str) -> Op:
    return Op(file=FileOp([FileAction(FileCopy(name, "/", unpack=True))]))


def test_git() -> None:
    secrets = {"git_authtokensecret": "GIT_AUTH_TOKEN", "git_authheadersecret": "GIT_AUTH_HEADER"}
    told = source("git://example.com/r.git#main:sub", git_fullurl="https://example.com/r.git", **secrets)
    assert read_source(definition(told)) == Source("https://example.com/r.git#main:sub")
    ssh = {"git_mountsshsock": "default", "git_knownsshhosts": "example.com ssh-rsa x"}
    told = source("git://example.com/r.git", git_fullurl="git@example.com:r.git", git_keepgitdir="true", **ssh)
    assert read_source(definition(told)) == Source("git@example.com:r.git", keep_git=True)


def test_http() -> None:
    url = "http://example.com/c.tar"
    assert read_source(definition(source(url))) == Source(url, "c.tar")
    named = source(url, http_filename="context", http_checksum="sha256:aa")
    assert read_source(definition(named)) == Source(url, "context", "sha256:aa")
    assert read_source(definition(named, unpacking("/context"))) == Source(url, "context", "sha256:aa", unpacked=True)


@pytest.mark.parametrize(
    ("ops", "told"),
    [
        ([], "malformed"),
        ([b"\xff"], "malformed"),
        (definition(source("docker-image://busybox")), "low-level build definitions are not supported"),
        (definition(source("local://context")), "low-level build definitions are not supported"),
        (definition(Op(file=FileOp([FileAction(FileCopy("/a", "/"))]))), "not supported"),
        (definition(source("http://h/a"), unpacking("/b")), "not supported"),
        (definition(source("git://h/r.git"), unpacking("/b")), "not supported"),
        (definition(source("git://h/r", git_fullurl="https://h/r")), "must end in .git"),
        (definition(source("git://h/r.git", git_skipsubmodules="true")), "git.skipsubmodules=true"),
        (definition(source("git://h/r.git", git_mountsshsock="other")), "git.mountsshsock=other"),
        (definition(source("http://h/a", http_filename="../a")), "invalid http.filename"),
        (definition(source("http://h/a", http_perm="7")), "http.perm=7"),
        (definition(source("http://h/a"))[1:], "missing"),
        (definition(source("http://h/a"))[:1], "no result"),
    ],
)
def test_what_is_refused(ops: list[bytes], told: str) -> None:
    with pytest.raises(HavreError, match=told):
        read_source(ops)

"""Builds: a secret leaves no trace anywhere, and contexts that lie about their sizes cost nothing."""

from __future__ import annotations

import io
import mmap
import os
import socket
import tarfile
from pathlib import Path

from support.building import docker_build, write_context
from support.engines import Engine
from support.raw import ask

_SECRET = "never-to-be-seen-c0ffee"
_TEXT = """FROM busybox
RUN --mount=type=secret,id=key,target=/key test -s /key && wc -c < /key > /size
RUN --mount=type=secret,id=key cat /run/secrets/key > /dev/null
COPY a /a
"""


def _holders(root: Path, needle: bytes) -> list[Path]:
    """The regular files below `root` that hold `needle`."""
    found = []
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_size:
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                if content.find(needle) >= 0:
                    found.append(path)
    return found


def test_a_secret_leaves_no_trace(havred: Engine, tmp_path: Path) -> None:
    context = write_context(tmp_path / "context", _TEXT, {"a": "x"})
    key = tmp_path / "key"
    key.write_text(_SECRET)
    proxy = f"HTTP_PROXY=http://{_SECRET}@proxy.example"
    flags = ("--secret", f"id=key,src={key}", "--build-arg", proxy, "--cache-to", "type=inline", "-t", "secretive:1")
    told = havred.docker("buildx", "build", "--progress=plain", *flags, str(context), check=0)
    assert _SECRET not in told.stdout + told.stderr
    for document in (
        ("history", "--no-trunc", "secretive:1"),
        ("image", "inspect", "secretive:1"),
        ("buildx", "du", "--verbose"),
    ):
        assert _SECRET not in havred.out(*document)
    archive = tmp_path / "image.tar"
    havred.docker("save", "-o", str(archive), "secretive:1", check=0)
    assert _SECRET.encode() not in archive.read_bytes()
    assert _holders(havred.root, _SECRET.encode()) == []
    havred.docker("rmi", "-f", "secretive:1", check=0)
    havred.docker("builder", "prune", "-af", check=0)


def test_a_context_that_claims_to_be_huge(havred: Engine) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        text = b"FROM scratch\nCOPY huge /\n"
        member = tarfile.TarInfo("Dockerfile")
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text))
        huge = tarfile.TarInfo("huge")
        huge.size = 1 << 50
        out.write(huge.tobuf(tarfile.GNU_FORMAT) + b"x" * 1024)
        body = out.getvalue()
    answer = ask(havred.socket, "POST", "/build", body, {"Content-Type": "application/x-tar"})
    assert answer.status >= 400 or b'"error"' in answer.body


def test_a_dockerfile_of_ten_megabytes(havred: Engine, tmp_path: Path) -> None:
    """Refused by its size at every door, before anything is read of it; so is one that never ends a here-document."""
    endless = "FROM scratch\nCOPY <<EOF /f\n" + "x\n" * (1 << 17)
    for text, words in (("FROM scratch\n" + "# x\n" * (10 << 18), "4194304"), (endless, "EOF")):
        context = write_context(tmp_path / words, text)
        told = [
            docker_build(havred, context, check=1).stderr,
            havred.docker("buildx", "build", str(context), check=1).stderr,
            havred.havre("build", str(context), check=1).stderr,
        ]
        for each in told:
            assert words in each
            assert len(each) < 10_000, "an error is no copy of the file"


def test_sockets_and_pipes_are_not_read(havred: Engine, tmp_path: Path) -> None:
    """A build neither waits for them nor has anything of them; buildx sends a socket as an empty file."""
    text = "FROM busybox\nCOPY . /tree/\nRUN ! test -s /tree/socket && ! test -f /tree/pipe\n"
    context = write_context(tmp_path / "c", text, {"a": "x"})
    os.mkfifo(context / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(context / "socket"))
        docker_build(havred, context)
        havred.docker("buildx", "build", "-q", str(context), check=0)
    havred.docker("image", "prune", "-f", check=0)
    havred.docker("builder", "prune", "-af", check=0)

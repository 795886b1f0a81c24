"""Builds by docker's classic builder and other clients, and their results."""

from __future__ import annotations

import base64
import io
import json
import socket
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.engines import Engine
from support.raw import ask
from support.waiting import until

_ENGINE_MADE = ("dev", "proc", "sys", "etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab", ".dockerenv")

CLIENTS = ("classic", "buildx", "havre")

Files = Mapping[str, str | bytes]
Build = Callable[..., str]


def built_by(client: str, havred: Engine, context: Path) -> Build:
    """A function that builds a context with flags by `havre` or `buildx` and returns the output."""

    def run(*flags: str, check: int = 0) -> str:
        if client == "havre":
            return havred.havre("build", *flags, str(context), check=check).stderr
        return havred.docker("buildx", "build", "--progress=plain", *flags, str(context), check=check).stderr

    return run


def write_context(directory: Path, dockerfile: str, files: Files | None = None) -> Path:
    """A context directory; names that end with a slash are empty directories, contents `-> x` are symbolic links to
    x."""
    for name, content in {"Dockerfile": dockerfile, **(files or {})}.items():
        path = directory / name
        if name.endswith("/"):
            path.mkdir(parents=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str) and content.startswith("-> "):
            path.symlink_to(content.removeprefix("-> "))
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
    return directory


def docker_build(engine: Engine, context: Path, *flags: str, check: int | None = 0) -> subprocess.CompletedProcess[str]:
    """`docker build` with the classic builder."""
    env, engine.env = engine.env, {**engine.env, "DOCKER_BUILDKIT": "0"}
    try:
        return engine.docker("build", *flags, str(context), check=check)
    finally:
        engine.env = env


def built(engine: Engine, context: Path, *flags: str, client: str = "classic") -> str:
    """The ID of the image that `build -q` creates from the context; `client` is one of `CLIENTS`."""
    if client == "classic":
        return docker_build(engine, context, "-q", *flags).stdout.strip()
    if client == "havre":
        return engine.havre("build", "-q", *flags, str(context), check=0).stdout.strip()
    return engine.out("buildx", "build", "-q", *flags, str(context))


def config_of(engine: Engine, image: str) -> dict[str, Any]:
    """An image's container defaults, without empty fields."""
    found: dict[str, Any] = json.loads(engine.out("image", "inspect", "-f", "{{json .Config}}", image))
    kept = {key: value for key, value in found.items() if value not in (None, "", False, [], {})}
    for noise in ("Image", "Hostname", "ArgsEscaped"):
        kept.pop(noise, None)
    return kept


def tree_of(engine: Engine, image: str, below: Sequence[str] = ("",)) -> dict[str, tuple[Any, ...]]:
    """Every file of an image: type, mode, owner, and content or link; times of directories and links are ignored."""
    container = engine.out("create", image, "x")
    try:
        command = ["docker", "cp", f"{container}:/", "-"]
        data = subprocess.run(command, env=engine.env, capture_output=True, check=True).stdout
    finally:
        engine.docker("rm", "-f", container, check=0)
    tree: dict[str, tuple[Any, ...]] = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            name = member.name.strip("/")
            if name.split("/")[0] in _ENGINE_MADE or name in _ENGINE_MADE or not name.startswith(tuple(below)):
                continue
            file = tar.extractfile(member) if member.isreg() else None
            content = file.read() if file is not None and member.size < 4096 else member.size
            tree[name] = (member.type, oct(member.mode), member.uid, member.gid, content, member.linkname)
    return tree


def wanted_files(engine: Engine, context: Path, key: str = "k") -> dict[str, list[int]]:
    """The files in `context` that the daemon requests, asked as the command line does; `key` is that of the context."""
    wanted: dict[str, list[int]] = send_listed(engine, context, key=key)[0]["aux"]["Wanted"]
    return wanted


def send_listed(engine: Engine, context: Path, dockerfile: bytes | None = None, key: str = "k") -> list[dict[str, Any]]:
    """Send a build whose head has the text `dockerfile` and all files of `context`. Returns the daemon's messages."""
    paths = sorted(context.iterdir())
    files = [[path.name, path.stat().st_mode, path.stat().st_size, path.stat().st_mtime_ns, ""] for path in paths]
    text = None if dockerfile is None else base64.b64encode(dockerfile).decode()
    head = json.dumps({"Contexts": {"context": {"Key": key, "Files": files}}, "Dockerfile": text}) + "\n"
    contents = b"".join(path.stat().st_size.to_bytes(8, "big") + path.read_bytes() for path in paths)
    headers = {"Content-Type": "application/vnd.havre.context"}
    answer = ask(engine.socket, "POST", "/build?q=1", head.encode() + contents, headers)
    return [json.loads(line) for line in answer.body.splitlines()]


@contextmanager
def served(engine: Engine, directory: Path) -> Iterator[str]:
    """A web server in the engine's network for a directory."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "http.server", "-b", "127.0.0.1", "-d", str(directory), str(port)]
    server = subprocess.Popen([*engine.inside, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    attempt = f"import socket; socket.create_connection(('127.0.0.1', {port}))"
    knock = [*engine.inside, sys.executable, "-c", attempt]
    try:
        until(lambda: subprocess.run(knock, capture_output=True, check=False).returncode == 0, "the server")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()

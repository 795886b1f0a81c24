"""Debian's docker-registry on a loopback port, with its own store and optional htpasswd accounts."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from support.waiting import until

HAVRE = Path(sys.prefix) / "bin" / "havre"
# havre:secret in bcrypt, the only scheme that docker-registry supports.
USER, PASSWORD = "havre", "secret"
HTPASSWD = "havre:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"


@dataclass(frozen=True)
class RealRegistry:
    """A running registry; `host` is the prefix of its image names."""

    host: str
    root: Path

    def skopeo(self, *arguments: str) -> str:
        """skopeo's output; fails with its error message."""
        done = subprocess.run(["skopeo", *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def real_registry(
    root: Path, *, htpasswd: bool = False, inside: Sequence[str] = (), address: str = "127.0.0.1"
) -> Iterator[RealRegistry]:
    """A registry during a block; `inside` is a command prefix that enters a network namespace."""
    port = _free_port()
    config = root / "config.yml"
    root.mkdir(parents=True, exist_ok=True)
    text = (
        "version: 0.1\nlog: {level: warn}\n"
        f"storage: {{filesystem: {{rootdirectory: {root}/data}}, delete: {{enabled: true}}}}\n"
        f"http: {{addr: '{address}:{port}'}}\n"
    )
    if htpasswd:
        (root / "htpasswd").write_text(HTPASSWD)
        text += f"auth: {{htpasswd: {{realm: test, path: {root}/htpasswd}}}}\n"
    config.write_text(text)
    with _running(["docker-registry", "serve", str(config)], root, port, inside, address) as running:
        yield running


def _free_port() -> int:
    """A port below those that the kernel gives to clients, in whichever network namespace."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _answers(address: str, port: int, inside: Sequence[str]) -> bool:
    probe = ["bash", "-c", f"exec 3<>/dev/tcp/{address}/{port}"]
    return subprocess.run([*inside, *probe], capture_output=True, check=False).returncode == 0


@contextmanager
def own_registry(root: Path, *, inside: Sequence[str] = (), flags: Sequence[str] = ()) -> Iterator[RealRegistry]:
    """havre's registry, likewise."""
    port = _free_port()
    root.mkdir(parents=True, exist_ok=True)
    program = [str(HAVRE), "registry", "serve", "--addr", f"127.0.0.1:{port}"]
    with _running([*program, "--root", str(root / "data"), *flags], root, port, inside) as running:
        yield running


@contextmanager
def _running(
    command: Sequence[str], root: Path, port: int, inside: Sequence[str], address: str = "127.0.0.1"
) -> Iterator[RealRegistry]:
    """A registry's process, from listening to its exit."""
    with (root / "log").open("wb") as log:
        process = subprocess.Popen([*inside, *command], stdout=log, stderr=log)
    try:
        until(lambda: _answers(address, port, inside) or process.poll() is not None, f"{command[0]} to listen")
        assert process.poll() is None, (root / "log").read_text()
        yield RealRegistry(f"{'localhost' if address == '127.0.0.1' else address}:{port}", root)
    finally:
        process.terminate()
        process.wait(10)

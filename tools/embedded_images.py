#!/usr/bin/env python3
"""Make the images that come with havre, without a registry: `embedded_images.py OUTDIR [NAME ...]`.

    busybox   Debian's static busybox with all of its applets, a few accounts; runs sh
    hello     the same layer and one more: a text that says what has just happened

Both are docker-archives (`havre load` reads them) that come out byte for byte the same from the same busybox. Standard
library only: this runs before anything else is there.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import platform
import subprocess
import tarfile
from pathlib import Path

BUSYBOX = Path("/bin/busybox")
CREATED = "2026-01-01T00:00:00Z"
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}

DIRECTORIES = {
    "bin": 0o755, "dev": 0o755, "etc": 0o755, "home": 0o755, "proc": 0o555, "root": 0o700, "sbin": 0o755, "sys": 0o555,
    "tmp": 0o1777, "usr": 0o755, "usr/bin": 0o755, "usr/sbin": 0o755, "var": 0o755, "var/log": 0o755,
    "var/spool": 0o755, "var/spool/mail": 0o755, "var/tmp": 0o1777, "var/www": 0o755,
}  # fmt: skip

ACCOUNTS = (
    ("root", 0, "/root", "/bin/sh"),
    ("daemon", 1, "/usr/sbin", "/bin/false"),
    ("bin", 2, "/bin", "/bin/false"),
    ("www-data", 33, "/var/www", "/bin/false"),
    ("nobody", 65534, "/home", "/bin/false"),
)
GROUPS = {
    "root": 0, "daemon": 1, "bin": 2, "tty": 5, "disk": 6, "mail": 8, "www-data": 33, "users": 100, "nogroup": 65534,
}  # fmt: skip

HELLO = """
Hello from a container of havre!

This text means that your installation works. To print it,

  1. `havre run hello` asked the daemon, over its socket, for a container
     of the image "hello". The image was made on this machine; had it not
     been here, it would have been pulled from a registry.
  2. The daemon stacked the image's two layers, read-only, under a writable
     directory: that is the container's root file system.
  3. It made a network namespace with an address of its own on the bridge.
  4. It wrote down what the container may do (capabilities, system calls,
     memory, processes) and handed that to an OCI runtime, which started
     this program inside, as process 1.
  5. A monitor passed the text on to the daemon, the daemon to your terminal.
     The program has ended by now, and its exit code is the command's.

Next, look around inside a small Linux system:

    havre run -it --rm busybox

or let any Docker client drive the same daemon:

    DOCKER_HOST=unix:///run/havre.sock docker ps -a
"""


class Layer:
    """A layer's tar, made in memory: times are the epoch, everything belongs to root."""

    def __init__(self) -> None:
        self._bytes = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._bytes, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115

    def directory(self, path: str, mode: int) -> None:
        """Add a directory."""
        self._add(path, tarfile.DIRTYPE, mode)

    def file(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Add a regular file."""
        self._add(path, tarfile.REGTYPE, mode, data)

    def link(self, path: str, target: str) -> None:
        """Add a hard link to a file added before."""
        self._add(path, tarfile.LNKTYPE, 0o755, target=target)

    def finish(self) -> bytes:
        """The tar."""
        self._tar.close()
        return self._bytes.getvalue()

    def _add(self, path: str, kind: bytes, mode: int, data: bytes = b"", target: str = "") -> None:
        member = tarfile.TarInfo(path)
        member.type, member.mode, member.size, member.linkname = kind, mode, len(data), target
        member.uname = member.gname = ""
        self._tar.addfile(member, io.BytesIO(data))


def make_busybox_layer(busybox: Path) -> bytes:
    """The root file system of `busybox`: the program, a link to it for every applet, accounts."""
    layer = Layer()
    for path, mode in DIRECTORIES.items():
        layer.directory(path, mode)
    layer.file("bin/busybox", busybox.read_bytes(), 0o755)
    listed = subprocess.run([busybox, "--list-full"], check=True, capture_output=True, text=True).stdout
    for applet in sorted(set(listed.split()) - {"bin/busybox"}):
        if applet.rpartition("/")[0] in DIRECTORIES:
            layer.link(applet, "bin/busybox")
    layer.file("etc/group", "".join(f"{name}:x:{gid}:\n" for name, gid in GROUPS.items()).encode())
    passwd = "".join(f"{name}:x:{uid}:{_group(uid)}:{name}:{home}:{shell}\n" for name, uid, home, shell in ACCOUNTS)
    layer.file("etc/passwd", passwd.encode())
    layer.file("etc/shadow", "".join(f"{name}:*:::::::\n" for name, *_ in ACCOUNTS).encode(), 0o600)
    layer.file("etc/nsswitch.conf", b"hosts: files dns\n")
    return layer.finish()


def make_hello_layer() -> bytes:
    """The layer on top that has the text."""
    layer = Layer()
    layer.file("hello.txt", HELLO.encode())
    return layer.finish()


def make_archive(name: str, layers: list[bytes], command: list[str], steps: list[str]) -> bytes:
    """A docker-archive of one image with these layers, base first, each made by the step of the same place."""
    config = {
        "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
        "config": {"Cmd": command, "Env": [PATH], "WorkingDir": "/"},
        "created": CREATED,
        "history": [{"created": CREATED, "created_by": step} for step in steps],
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{_hex(layer)}" for layer in layers]},
    }
    body = json.dumps(config, sort_keys=True, separators=(",", ":")).encode()
    paths = [f"blobs/sha256/{_hex(layer)}" for layer in layers]
    item = {"Config": f"blobs/sha256/{_hex(body)}", "RepoTags": [f"{name}:latest"], "Layers": paths}
    archive = Layer()
    archive.directory("blobs", 0o755)
    archive.directory("blobs/sha256", 0o755)
    for data in (*layers, body):
        archive.file(f"blobs/sha256/{_hex(data)}", data)
    archive.file("manifest.json", json.dumps([item], sort_keys=True, separators=(",", ":")).encode())
    return archive.finish()


def main() -> None:
    """Write the archives asked for, each in one step so that none is ever seen half-written."""
    parser = argparse.ArgumentParser(description="Make havre's embedded images.")
    parser.add_argument("outdir", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", help="busybox, hello (default: both)")
    parser.add_argument("--busybox", type=Path, default=BUSYBOX, help="a static busybox (default: %(default)s)")
    options = parser.parse_args()
    if unknown := set(options.names) - {"busybox", "hello"}:
        parser.error(f"no embedded image is named {', '.join(sorted(unknown))}")
    base = make_busybox_layer(options.busybox)
    step = "COPY busybox-static / # with its applets and accounts"
    images = {
        "busybox": ([base], ["sh"], [step]),
        "hello": ([base, make_hello_layer()], ["cat", "/hello.txt"], [step, "COPY hello.txt /"]),
    }
    options.outdir.mkdir(parents=True, exist_ok=True)
    for name in options.names or images:
        partial = options.outdir / f".{name}.tar.partial"
        partial.write_bytes(make_archive(name, *images[name]))
        partial.rename(options.outdir / f"{name}.tar")


def _group(uid: int) -> int:
    """The account's own group, else nogroup."""
    return uid if uid in GROUPS.values() else GROUPS["nogroup"]


def _hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


if __name__ == "__main__":
    main()

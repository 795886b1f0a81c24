"""Images for the tests, made from Debian's packages."""

from __future__ import annotations

import fcntl
import io
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from support.engines import ROOT, Engine

_PACKAGES = "bash,passwd,python3-minimal,nginx-light,postgresql,redis-server,python3-redis,python3-psycopg2"
_WITHOUT = (
    *("usr/lib/*/libLLVM*", "usr/lib/*/libz3*", "usr/lib/postgresql/*/lib/bitcode"),
    *("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/i18n"),
    *("var/lib/postgresql/*", "etc/postgresql/*", "var/lib/apt/lists/*", "var/cache/apt/*"),
)


def busybox_archive(folder: Path) -> Path:
    """The embedded busybox image, as created by `make run`. Returns the archive's path."""
    subprocess.run([sys.executable, str(ROOT / "tools" / "embedded_images.py"), str(folder)], check=True)
    return folder / "busybox.tar"


def import_busybox(
    engine: Engine,
    name: str,
    *,
    links: Mapping[str, str] | None = None,
    fifos: Iterable[str] = (),
    changes: Iterable[str] = (),
) -> None:
    """An image of this machine's busybox, with symbolic links (path: target) and fifos in odd places."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for path, target in (links or {}).items():
            _add(tar, path, tarfile.SYMTYPE, target)
        for path in fifos:
            _add(tar, path, tarfile.FIFOTYPE)
        tar.add("/bin/busybox", "bin/busybox")
        for applet in ("sh", "true", "cat", "echo", "touch"):
            _add(tar, f"bin/{applet}", tarfile.LNKTYPE, "bin/busybox")
    options = [option for change in changes for option in ("-c", change)]
    engine.docker("import", *options, "-", name, stdin=layer.getvalue(), check=0)


def _add(tar: tarfile.TarFile, path: str, kind: bytes, target: str = "") -> None:
    entry = tarfile.TarInfo(path)
    entry.type, entry.linkname, entry.mode = kind, target, 0o755
    tar.addfile(entry)


def debian_tree(packages: str = _PACKAGES, without: Sequence[str] = _WITHOUT) -> Path:
    """A tar of a minimal Debian, by default with all the software that tests run, made by mmdebstrap once and kept.

    `packages` are separated by commas; `without` are patterns of paths that are removed.
    """
    name = "debian" if packages == _PACKAGES else f"debian-{packages.replace(',', '-')}"
    kept = ROOT / "build" / "images" / f"{name}.tar"
    kept.parent.mkdir(parents=True, exist_ok=True)
    with kept.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be creating it
        if not kept.exists():
            partial = kept.with_suffix(".partial")
            command = ["mmdebstrap", "--mode=root", "--variant=essential", f"--include={packages}", "--format=tar"]
            command += [f'--customize-hook=rm -rf "$1"/{pattern}' for pattern in without]
            subprocess.run([*command, "trixie", str(partial)], check=True, capture_output=True)
            partial.rename(kept)
    return kept

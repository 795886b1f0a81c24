"""A Debian package repository in a directory, for `apt install` in builds without a network."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from support.engines import ROOT

_HOOK = (
    'APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get -y -o Dir::Cache::archives={into} --no-install-recommends '
    "--download-only install {package}"
)


def apt_base(package: str) -> tuple[Path, Path]:
    """A tar of a minimal Debian with apt, and a directory with `package` and its dependencies; created once."""
    kept = ROOT / "build" / "images" / f"apt-{package}"
    tar, packages = kept / "base.tar", kept / "packages"
    if not kept.exists():
        partial = kept.with_suffix(f".{os.getpid()}")
        (partial / "packages/partial").mkdir(parents=True)
        command = ["mmdebstrap", "--mode=root", "--variant=essential", "--include=apt,bash", "--format=tar"]
        command.append(f"--customize-hook={_HOOK.format(into=partial / 'packages', package=package)}")
        subprocess.run([*command, "trixie", str(partial / "base.tar")], check=True, capture_output=True)
        shutil.rmtree(partial / "packages/partial")
        (partial / "packages/lock").unlink(missing_ok=True)
        _write_index(partial / "packages")
        partial.rename(kept)
    return tar, packages


def _write_index(packages: Path) -> None:
    entries = []
    for path in sorted(packages.glob("*.deb")):
        fields = subprocess.run(["dpkg-deb", "-f", str(path)], check=True, capture_output=True, text=True).stdout
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        entries.append(f"{fields}Filename: ./{path.name}\nSize: {path.stat().st_size}\nSHA256: {digest}\n")
    (packages / "Packages").write_text("\n".join(entries))

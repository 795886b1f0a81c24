"""Images for the tests, made from Debian's packages."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from support.engines import ROOT


def busybox_archive(folder: Path) -> Path:
    """The embedded busybox image, as `make run` makes it; returns the archive's path."""
    subprocess.run([sys.executable, str(ROOT / "tools" / "embedded_images.py"), str(folder)], check=True)
    return folder / "busybox.tar"


def debian_tree(include: str, without: Sequence[str] = ()) -> Path:
    """A tar of a minimal Debian with the packages of `include` (comma-separated), made by mmdebstrap once and kept.

    `without` are patterns of paths that are removed from it.
    """
    kept = ROOT / "build" / "images" / f"debian-{include.replace(',', '-')}{'-trimmed' * bool(without)}.tar"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(f".{os.getpid()}")
        command = ["mmdebstrap", "--mode=root", "--variant=essential", f"--include={include}", "--format=tar"]
        command += [f'--customize-hook=rm -rf "$1"/{pattern}' for pattern in without]
        subprocess.run([*command, "trixie", str(partial)], check=True, capture_output=True)
        partial.rename(kept)
    return kept

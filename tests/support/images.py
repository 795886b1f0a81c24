"""Images for the tests, made from Debian's packages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support.engines import ROOT


def busybox_archive(folder: Path) -> Path:
    """The embedded busybox image, as `make run` makes it; returns the archive's path."""
    subprocess.run([sys.executable, str(ROOT / "tools" / "embedded_images.py"), str(folder)], check=True)
    return folder / "busybox.tar"

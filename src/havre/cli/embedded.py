"""The images that come with havre, recreated from this host's busybox when they have been removed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from havre.cli.session import Session

_NAMES = ("busybox", "hello")
_TOOL = Path(__file__).resolve().parents[3] / "tools/embedded_images.py"
_PIECE = 256 << 10


def make_embedded(session: Session, image: str) -> bool:
    """Create and load the embedded image called `image`, and say so; returns False for other names, or on failure."""
    name = image.removesuffix(":latest")
    if name not in _NAMES or not _TOOL.exists():
        return False
    with TemporaryDirectory(prefix="havre-") as directory:
        made = subprocess.run([sys.executable, _TOOL, directory, name], capture_output=True, check=False)
        if made.returncode != 0:
            return False
        response = session.client.call(
            "POST", "/images/load", {"quiet": "1"}, raw_body=_pieces(os.path.join(directory, f"{name}.tar"))
        )
        for message in session.client.messages(response):
            if "error" in message:
                return False
    session.warn(f"Made {name}:latest from this host's busybox")
    return True


def _pieces(path: str) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            yield piece

"""Checkpoints: what is asked of criu by way of the OCI runtime, and what it answers.

    checkpoint    OCI runtime checkpoint ID     criu freezes the processes and writes their memory, descriptors and
                                                mounts to a directory of images; by default it kills them then
    restore       conmon --restore DIRECTORY    conmon calls the OCI runtime's `restore` in place of `create`; when it
                                                reports a PID, the processes run on already

The network namespace is external to both: a checkpoint holds nothing of it, and what is restored finds the sandbox of
its new start, with the addresses of that. So connections do not survive; criu refuses to dump one that stands.

Sources: criu(8); crun(1) and runc-checkpoint(8); conmon(8).
"""

from __future__ import annotations

import shutil
from pathlib import Path

from havre.errors import Unavailable
from havre.runtime import spawn

INVENTORY = "inventory.img"
"""The image without which a directory is no checkpoint."""

_REASONS = 3


def check_criu() -> None:
    """Unavailable where it is not installed."""
    if shutil.which("criu", path=spawn.ENVIRONMENT["PATH"]) is None:
        raise Unavailable("criu is not installed", "install the packages criu and libcriu2")


def dump_options(images: Path, work: Path, *, leave_running: bool) -> list[str]:
    """The options of the OCI runtime's `checkpoint`; criu's log goes to the directory `work`."""
    options = [f"--image-path={images}", f"--work-path={work}"]
    return [*options, "--leave-running"] if leave_running else options


def is_checkpoint(directory: Path) -> bool:
    """Whether a directory holds what can be restored. Blocking."""
    return (directory / INVENTORY).is_file()


def read_reason(log: Path, otherwise: str) -> str:
    """Why criu failed: the first of its errors that are left in `log`, or what the OCI runtime said. Blocking."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return otherwise.strip()
    errors = [line.partition("Error")[2].partition("): ")[2] for line in lines if "Error (" in line]
    return "criu: " + "; ".join(errors[:_REASONS]) if errors else otherwise.strip()

"""Checkpoints: options passed to criu through the OCI runtime, and its error messages.

    checkpoint    OCI runtime checkpoint ID     criu freezes the processes and writes their memory, descriptors and
                                                mounts to a directory of images; by default it then kills them
    restore       conmon --restore DIRECTORY    conmon calls the OCI runtime's `restore` in place of `create`; when it
                                                reports a PID, the processes are already running

The network namespace is external to both: a checkpoint excludes it, and restored processes find the sandbox of the new
start, with its addresses. Connections therefore do not survive; criu refuses to dump established ones.

Sources: criu(8); crun(1) and runc-checkpoint(8); conmon(8).
"""

from __future__ import annotations

import shutil
from pathlib import Path

from havre.errors import Unavailable
from havre.runtime import spawn

INVENTORY = "inventory.img"
"""The image that every checkpoint contains."""

_REASONS = 3


def check_criu() -> None:
    """Raise Unavailable where criu is not installed."""
    if shutil.which("criu", path=spawn.ENVIRONMENT["PATH"]) is None:
        raise Unavailable("criu is not installed", "install the packages criu and libcriu2")


def dump_options(images: Path, work: Path, *, leave_running: bool) -> list[str]:
    """The options of the OCI runtime's `checkpoint`; criu's log goes to the directory `work`."""
    options = [f"--image-path={images}", f"--work-path={work}"]
    return [*options, "--leave-running"] if leave_running else options


def is_checkpoint(directory: Path) -> bool:
    """Report whether a directory contains a checkpoint. Blocking."""
    return (directory / INVENTORY).is_file()


def read_reason(log: Path, otherwise: str) -> str:
    """Why criu failed: the first error in `log`, or `otherwise`, the OCI runtime's message. Blocking."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return otherwise.strip()
    errors = [line.partition("Error")[2].partition("): ")[2] for line in lines if "Error (" in line]
    return "criu: " + "; ".join(errors[:_REASONS]) if errors else otherwise.strip()

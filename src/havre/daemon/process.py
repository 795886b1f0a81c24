"""The daemon's process: a single instance by its PID file, and a bounded shutdown."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from havre.errors import Conflict, Failed

log = logging.getLogger(__name__)


@contextmanager
def pid_file(path: Path) -> Iterator[None]:
    """Hold the PID file during a block; a stale one is replaced, that of a running daemon raises `Conflict`."""
    try:
        path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        if (holder := _living_daemon(path)) is not None:
            raise Conflict(
                f"failed to start daemon: process with PID {holder} is still running", f"it holds the PID file {path}"
            )
        path.write_text(f"{os.getpid()}\n")
    except OSError as error:
        raise Failed(f"failed to start daemon: cannot write the PID file {path}: {error.strerror}") from error
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def _living_daemon(path: Path) -> int | None:
    try:
        pid = int(path.read_text().strip() or "0")
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return None
    is_daemon = any(b"havre" in word for word in words)
    return pid if is_daemon and pid not in (0, os.getpid()) else None


def bound_stop(limit_s: int, pid_path: Path, *, with_host: bool = False) -> None:
    """Exit after `limit_s` even if the event loop or threads are blocked."""

    def leave() -> None:
        log.error("stopping has taken %d s: exiting; the next daemon cleans up", limit_s)
        with contextlib.suppress(OSError):
            if pid_path.read_text().strip() == str(os.getpid()):  # otherwise the next daemon has started
                pid_path.unlink()
        os._exit(1)

    log.info("stopping, which takes %d s at most%s", limit_s, "" if with_host else "; containers run on")
    bound = threading.Timer(limit_s, leave)
    bound.daemon = True
    bound.start()

"""A daemon that cannot stop, since a thread of its own waits for something that never comes, ends all the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

STUCK = """
import os, sys, threading
from pathlib import Path
from havre.daemon.process import bound_stop
from havre.logtext import configure_logging

if sys.argv[2] == "own":
    Path(sys.argv[1]).write_text(f"{os.getpid()}\\n")
configure_logging("info")
bound_stop(1, Path(sys.argv[1]))
threading.Event().wait()
"""


def _stuck(pid_file: Path, whose: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", STUCK, str(pid_file), whose]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=30)


def test_a_stop_has_a_bound_which_is_told(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    ended = _stuck(pid_file, "own")
    assert ended.returncode == 1
    assert "stopping, which takes 1 s at most; containers run on" in ended.stderr
    assert "stopping has taken 1 s: exiting; the next daemon cleans up" in ended.stderr
    assert not pid_file.exists()


def test_the_pid_file_of_the_next_daemon_stays(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    pid_file.write_text("1\n")
    assert _stuck(pid_file, "another's").returncode == 1
    assert pid_file.read_text() == "1\n"

"""A daemon that cannot stop, since a thread of its own waits for something that never comes, ends all the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

STUCK = """
import sys, threading
from pathlib import Path
from havre.daemon import bound_stop, configure_logging

configure_logging("info")
bound_stop(1, Path(sys.argv[1]))
threading.Event().wait()
"""


def test_a_stop_has_a_bound_which_is_told(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    pid_file.write_text("1")
    ended = subprocess.run(
        [sys.executable, "-c", STUCK, str(pid_file)], capture_output=True, text=True, check=False, timeout=30
    )
    assert ended.returncode == 1
    assert "stopping, which takes 1 s at most; containers run on" in ended.stderr
    assert "stopping has taken 1 s: what is still under way is left for the next daemon" in ended.stderr
    assert not pid_file.exists()

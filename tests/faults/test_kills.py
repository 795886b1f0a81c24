"""The daemon is killed at any moment of create, start, stop, exec and rm; then all can be listed and removed.

The moments are drawn from a seeded generator over the time that the whole sequence takes, so that every step is hit.
"""

from __future__ import annotations

import random
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.engines import Engine, Havred

ROUNDS = 25
SCRIPT = "trap 'exit 0' TERM; sleep 100 & wait"
LIFE = (
    ("create", "--name", "victim", "-v", "kept:/v", "-p", "18400:80", "busybox", "sh", "-c", SCRIPT),
    ("start", "victim"),
    ("exec", "victim", "true"),
    ("stop", "-t", "1", "victim"),
    ("rm", "victim"),
)


@pytest.fixture
def havred(archive: Path) -> Iterator[Engine]:
    """A daemon of the test's own, to be killed at will."""
    engine = Havred()
    engine.open()
    engine.docker("load", "-i", str(archive), check=0)
    yield engine
    engine.close()


def live(engine: Engine) -> None:
    """The whole life of one container, whose commands fail once the daemon is gone."""
    for command in LIFE:
        subprocess.run(["docker", *command], env=engine.env, capture_output=True, check=False, timeout=60)


@pytest.mark.parametrize("seed", [1, 2])
def test_daemon_killed_at_any_moment(havred: Engine, seed: int) -> None:
    moments = random.Random(seed)
    for number in range(ROUNDS):
        living = threading.Thread(target=live, args=(havred,))
        living.start()
        living.join(moments.uniform(0.01, 0.5))
        havred.stop(signal.SIGKILL)
        living.join()
        havred.start()
        known = havred.out("ps", "-aq", "--no-trunc").split()
        assert len(known) <= 1, f"round {number}"
        if known:
            havred.docker("rm", "-f", *known, check=0)
        assert havred.out("ps", "-aq") == ""
        # Its name, its port and its volume are free for the next.
        havred.docker("run", "--rm", "--name", "victim", "-v", "kept:/v", "-p", "18400:80", "busybox", "true", check=0)
    havred.out("volume", "rm", "kept")

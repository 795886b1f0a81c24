"""Log drivers: what they keep, how files rotate without losing or doubling a line, what `logs` can read."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.engines import Engine
from support.waiting import until

LINES = 100_000
COUNT = ("busybox", "sh", "-c", f"exec seq 1 {LINES}")
ALL = [str(number) for number in range(1, LINES + 1)]


def finished(engine: Engine, name: str) -> None:
    assert engine.out("wait", name) == "0"


@pytest.fixture(autouse=True)
def counter(request: pytest.FixtureRequest) -> Iterator[None]:
    """The container of a test goes, however it ends."""
    yield
    names = {"engine", "havred"} & set(request.fixturenames)
    request.getfixturevalue(names.pop()).docker("rm", "-f", "count")


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_rotation_neither_loses_nor_doubles_a_line(engine: Engine, driver: str) -> None:
    options = ("--log-driver", driver, "--log-opt", "max-size=700k", "--log-opt", "max-file=50")
    engine.out("run", "-d", "--name", "count", *options, "--log-opt", "compress=true", *COUNT)
    finished(engine, "count")
    assert engine.out("logs", "count").splitlines() == ALL
    assert engine.out("logs", "--tail", "40000", "count").splitlines() == ALL[-40000:]


def test_old_files_go(engine: Engine) -> None:
    options = ("--log-opt", "max-size=200k", "--log-opt", "max-file=3")
    engine.out("run", "-d", "--name", "count", *options, *COUNT)
    finished(engine, "count")
    seen = engine.out("logs", "count").splitlines()
    first, *rest = seen
    # The oldest line may have begun in a file that has gone.
    assert ALL[-len(seen)].endswith(first)
    assert rest == ALL[-len(rest) :]
    written = Path(engine.out("inspect", "-f", "{{.LogPath}}", "count"))
    files = list(written.parent.glob(written.name + "*"))
    assert len(files) <= 3


def test_none_keeps_nothing(engine: Engine) -> None:
    engine.out("run", "--name", "silent", "--log-driver", "none", "busybox", "echo", "x")
    done = engine.docker("logs", "silent", check=1)
    assert "configured logging driver does not support reading" in done.stderr
    engine.out("rm", "silent")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--log-opt", "odd=1"), "unknown log opt 'odd' for json-file log driver"),
        (("--log-opt", "max-size=odd"), "failed to initialize logging driver: invalid size: 'odd'"),
        (("--log-opt", "max-size=1m", "--log-opt", "max-file=0"), "max-file cannot be less than 1"),
        (("--log-opt", "compress=true"), "compress cannot be true when max-file is less than 2"),
    ],
)
def test_bad_options_are_refused(engine: Engine, options: tuple[str, ...], words: str) -> None:
    assert words in engine.docker("run", "--rm", *options, "busybox", "true", check=125).stderr


def test_rotation_while_daemons_come_and_go(havred: Engine) -> None:
    """Those who follow lose their connection, the log loses nothing."""
    options = ("--log-opt", "max-size=300k", "--log-opt", "max-file=100")
    script = f"for i in $(seq 0 24); do seq $((i*{LINES // 25}+1)) $(((i+1)*{LINES // 25})); usleep 200000; done"
    havred.out("run", "-d", "--name", "count", *options, "busybox", "sh", "-c", script)
    written = Path(havred.out("inspect", "-f", "{{.LogPath}}", "count"))
    for number in (1, 2, 3):

        def rotated(number: int = number) -> bool:
            return written.with_name(f"{written.name}.{number}").exists() or havred.out("ps", "-q") == ""

        until(rotated, "a rotation, or the end")
        havred.stop(signal.SIGKILL)
        havred.start()
    finished(havred, "count")
    assert havred.out("logs", "count").splitlines() == ALL


def test_a_follower_that_comes_late_gets_everything_once(havred: Engine) -> None:
    options = ("--log-opt", "max-size=100k", "--log-opt", "max-file=200", "--log-opt", "compress=true")
    script = "for i in $(seq 0 19); do seq $((i*1000+1)) $(((i+1)*1000)); usleep 30000; done"
    havred.out("run", "-d", "--name", "count", *options, "busybox", "sh", "-c", script)
    followers = [
        subprocess.Popen(["docker", "logs", "-f", "count"], env=havred.env, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for follower in followers:
        assert follower.communicate(timeout=30)[0].splitlines() == ALL[:20000]

"""`stats` and `logs` on a terminal: colours there only, and not where NO_COLOR is set."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.engines import HAVRE, Engine
from support.terminals import Terminal
from support.waiting import until

# Nine processes of ten: close to the limit.
SCRIPT = "for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done; echo plain; echo wrong >&2; wait"


@pytest.fixture
def crowded(havred: Engine) -> Iterator[Engine]:
    """A container `crowded` that is close to its limit of processes."""
    havred.out(
        "run", "-d", "--name", "crowded", "--network", "none", "--pids-limit", "10", "busybox", "sh", "-c", SCRIPT
    )
    until(lambda: "wrong" in havred.docker("logs", "crowded").stderr, "its last line")
    yield havred
    havred.docker("rm", "-f", "crowded")


def shown(engine: Engine, *arguments: str, **env: str) -> str:
    with Terminal([str(HAVRE), *arguments], {"TERM": "xterm", **engine.env, **env}) as terminal:
        code, text = terminal.end()
    assert code == 0, text
    return text


def test_logs(crowded: Engine) -> None:
    assert sorted(shown(crowded, "logs", "crowded").split()) == ["\x1b[31mwrong\x1b[0m", "plain"]
    assert sorted(shown(crowded, "logs", "crowded", NO_COLOR="1").split()) == ["plain", "wrong"]
    piped = crowded.havre("logs", "crowded", check=0)
    assert (piped.stdout, piped.stderr) == ("plain\n", "wrong\n")


def test_stats(crowded: Engine) -> None:
    header, row = shown(crowded, "stats", "--no-stream").splitlines()
    assert header.startswith("\x1b[2mCONTAINER ID")
    assert row.startswith("\x1b[33m")
    assert row.endswith("\x1b[0m")
    assert "\x1b" not in shown(crowded, "stats", "--no-stream", NO_COLOR="1")
    assert "\x1b" not in crowded.havre("stats", "--no-stream", check=0).stdout
    assert "\x1b" not in shown(crowded, "stats", "--no-stream", "--format", "{{.Name}}")
    with Terminal([str(HAVRE), "stats"], {"TERM": "xterm", **crowded.env}) as terminal:
        terminal.expect("\x1b[H\x1b[2K\x1b[2mCONTAINER ID")
        terminal.expect("\x1b[33m")
        terminal.expect("\x1b[J")
        terminal.type("\x03")
        terminal.end()

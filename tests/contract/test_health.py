"""Health checks: states, log, events, `ps`, filters, and what a pause, an end and a new daemon do to them."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from support.engines import Engine
from support.waiting import until

SLEEP = ("busybox", "sleep", "1000")
QUICK = ("--health-interval", "200ms", "--health-retries", "2", "--health-timeout", "1s")
#: healthy as long as /ok exists
SWITCH = ("--health-cmd", "echo probed; test -e /ok", *QUICK)


def health(engine: Engine, name: str) -> Any:
    return json.loads(engine.out("inspect", "-f", "{{json .State.Health}}", name))


def status(engine: Engine, name: str) -> str:
    return str(health(engine, name)["Status"])


@pytest.fixture
def patient(engine: Engine) -> Iterator[str]:
    """A container that becomes healthy once it has a file /ok."""
    engine.out("run", "-d", "--name", "patient", "--stop-timeout", "0", *SWITCH, *SLEEP)
    yield "patient"
    engine.docker("rm", "-f", "patient", check=0)


def test_life(engine: Engine, patient: str) -> None:
    since = engine.out("inspect", "-f", "{{.Created}}", patient)
    until(lambda: status(engine, patient) == "unhealthy", "unhealthy")
    assert "(unhealthy)" in engine.out("ps", "--format", "{{.Status}}")
    assert engine.out("ps", "-q", "--filter", "health=healthy") == ""
    engine.out("exec", patient, "touch", "/ok")
    until(lambda: status(engine, patient) == "healthy", "healthy")
    assert engine.out("ps", "--format", "{{.Names}}", "--filter", "health=healthy") == patient
    assert engine.out("ps", "--format", "{{.Status}}").endswith("(healthy)")
    until(lambda: len(health(engine, patient)["Log"]) == 5, "five results")
    shown = health(engine, patient)
    assert shown["FailingStreak"] == 0
    assert set(shown["Log"][-1]) == {"Start", "End", "ExitCode", "Output"}
    assert (shown["Log"][-1]["ExitCode"], shown["Log"][-1]["Output"]) == (0, "probed\n")
    assert shown["Log"][-1]["Start"] < shown["Log"][-1]["End"]
    told = engine.out(
        *("events", "--since", since, "--until", str(time.time() + 0.2), "--filter", f"container={patient}"),
        *("--filter", "event=health_status", "--format", "{{.Action}}"),
    )
    assert told.splitlines() == ["health_status: unhealthy", "health_status: healthy"]
    engine.docker("stop", patient, check=0)
    assert status(engine, patient) == "unhealthy"
    engine.docker("start", patient, check=0)
    assert len(health(engine, patient)["Log"]) == 5
    until(lambda: status(engine, patient) == "healthy", "healthy again")


def test_pause(engine: Engine, patient: str) -> None:
    engine.out("exec", patient, "touch", "/ok")
    until(lambda: status(engine, patient) == "healthy", "healthy")
    engine.docker("pause", patient, check=0)
    assert engine.out("ps", "--format", "{{.Status}}").endswith("(Paused)")
    engine.docker("unpause", patient, check=0)
    until(lambda: status(engine, patient) == "healthy", "healthy")


def test_start_period_interval_and_timeout(engine: Engine) -> None:
    slow = ("--health-cmd", "echo slow; sleep 50", "--health-timeout", "200ms", "--health-interval", "100ms")
    period = ("--health-start-period", "100s", "--health-start-interval", "100ms", "--health-interval", "100s")
    engine.out("run", "-d", "--name", "slow", *slow, "--health-retries", "1", *SLEEP)
    engine.out("run", "-d", "--name", "starting", "--health-cmd", "false", *period, *SLEEP)
    engine.out("run", "-d", "--name", "broken", "--health-cmd", "no-such-program", *QUICK, *SLEEP)
    engine.out("run", "-d", "--name", "none", "--no-healthcheck", *SLEEP)
    until(lambda: status(engine, "slow") == "unhealthy", "the timeout")
    last = health(engine, "slow")["Log"][-1]
    assert last["ExitCode"] == -1
    assert last["Output"] == "Health check exceeded timeout (200ms): slow\n"
    until(lambda: len(health(engine, "starting")["Log"]) >= 3, "probes of the start interval")
    assert (status(engine, "starting"), health(engine, "starting")["FailingStreak"]) == ("starting", 0)
    assert "(health: starting)" in engine.out("ps", "--filter", "name=starting", "--format", "{{.Status}}")
    until(lambda: status(engine, "broken") == "unhealthy", "unhealthy")
    assert health(engine, "broken")["Log"][-1]["ExitCode"] == 127
    assert health(engine, "none") is None
    assert engine.out("ps", "--filter", "health=none", "--format", "{{.Names}}") == "none"
    engine.docker("rm", "-f", "slow", "starting", "broken", "none", check=0)


def test_of_the_image(engine: Engine) -> None:
    engine.out("create", "--name", "base", "busybox", "sleep", "1000")
    change = 'HEALTHCHECK --interval=200ms CMD ["echo", "from the image"]'
    engine.out("commit", "--change", change, "base", "checked")
    engine.out("run", "-d", "--name", "checked", "checked")
    until(lambda: status(engine, "checked") == "healthy", "healthy")
    assert health(engine, "checked")["Log"][0]["Output"] == "from the image\n"
    engine.docker("rm", "-f", "checked", "base", check=0)
    engine.docker("rmi", "checked", check=0)


def test_a_new_daemon_goes_on(havred: Engine) -> None:
    havred.out("run", "-d", "--name", "patient", *SWITCH, *SLEEP)
    havred.out("exec", "patient", "touch", "/ok")
    until(lambda: status(havred, "patient") == "healthy", "healthy")
    havred.stop(signal.SIGKILL)
    havred.start()
    assert status(havred, "patient") == "healthy"
    havred.out("exec", "patient", "rm", "/ok")
    until(lambda: status(havred, "patient") == "unhealthy", "a probe of the new daemon")
    havred.docker("rm", "-f", "patient", check=0)

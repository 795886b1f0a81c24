"""What was removed stays removed, whatever happened to it at that moment, and after the daemon's next start, too."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.engines import Engine, Havred, serving
from support.together import at_once, create, delete, post
from support.waiting import until

ROUNDS = 12


@pytest.fixture
def havred(archive: Path) -> Iterator[Engine]:
    """A daemon of the test's own, to be stopped and started again."""
    with serving(Havred(), archive) as engine:
        yield engine


@pytest.mark.parametrize("force", ["", "?force=1"])
def test_removal_during_a_start(havred: Engine, force: str) -> None:
    """A start that is under way comes first; nothing of the container comes back with the daemon's next start."""
    for number in range(ROUNDS):
        id = create(havred, f"brief{number}", HostConfig={"RestartPolicy": {"Name": "always"}})
        started, removed = at_once(post(havred, f"/containers/{id}/start"), delete(havred, f"/containers/{id}{force}"))
        assert (started.status, removed.status) in ((204, 204), (204, 409), (409, 204), (404, 204))
        if removed.status == 409:
            assert "stop the container before removing or force remove" in removed.message
            assert delete(havred, f"/containers/{id}?force=1")().status == 204
        elif started.status == 204:
            assert force, "a container that runs was removed without force"
    havred.stop()
    havred.start()
    assert havred.out("ps", "-aq") == ""


def test_renaming_during_a_removal(havred: Engine) -> None:
    for number in range(ROUNDS):
        id = create(havred, f"old{number}")
        renamed, removed = at_once(
            post(havred, f"/containers/{id}/rename?name=new{number}"), delete(havred, f"/containers/{id}")
        )
        assert (renamed.status, removed.status) in ((204, 204), (404, 204))
        # Both names are free again.
        for name in (f"old{number}", f"new{number}"):
            assert delete(havred, f"/containers/{create(havred, name)}")().status == 204
    havred.stop()
    havred.start()
    assert havred.out("ps", "-aq") == ""


def test_true_end_through_a_kill(havred: Engine) -> None:
    """The daemon is killed while it takes a container down: exit code and end are known all the same."""
    for number in range(10):
        id = create(havred, f"seven{number}", Cmd=["sh", "-c", "exit 7"])
        assert post(havred, f"/containers/{id}/start")().status == 204
        time.sleep(number * 0.004)  # a moment of the teardown, not something awaited
        havred.stop(signal.SIGKILL)
        havred.start()
        until(lambda: inspect(havred, id, "{{.State.Running}}") == "false", "the end")  # noqa: B023
        assert inspect(havred, id, "{{.State.Status}} {{.State.ExitCode}}") == "exited 7", f"round {number}"


def inspect(engine: Engine, id: str, form: str) -> str:
    return engine.out("inspect", "--format", form, id)

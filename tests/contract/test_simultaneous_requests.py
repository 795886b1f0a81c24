"""Clients that act on one container at the same moment: each gets a sensible answer, and what is gone stays gone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.engines import Engine, Havred, serving
from support.raw import ask
from support.together import at_once, create, delete, post

ROUNDS = 12
SLEEP = {"Image": "busybox", "Cmd": ["sleep", "1000"]}


@pytest.mark.parametrize("action", ["pause", "stop?t=0", "kill", "restart?t=0"])
def test_orders_to_one_that_is_dying(havred: Engine, action: str) -> None:
    for number in range(ROUNDS):
        id = create(havred, f"dying{number}")
        assert post(havred, f"/containers/{id}/start")().status == 204
        killed, ordered = at_once(post(havred, f"/containers/{id}/kill"), post(havred, f"/containers/{id}/{action}"))
        assert ordered.status in (204, 304, 409), ordered.body
        assert killed.status in (204, 409), killed.body
        if ordered.status == 409:
            assert "is not running" in ordered.message
        assert delete(havred, f"/containers/{id}?force=1")().status == 204


def test_lists_while_containers_go(havred: Engine) -> None:
    for number in range(ROUNDS):
        id = create(havred, f"going{number}")
        answers = at_once(
            delete(havred, f"/containers/{id}"),
            *[lambda: ask(havred.socket, "GET", "/containers/json?all=1&size=1")] * 3,
            lambda: ask(havred.socket, "GET", "/system/df"),
        )
        assert [reply.status for reply in answers] == [204, 200, 200, 200, 200], answers
        assert ask(havred.socket, "GET", f"/containers/{id}/json?size=1").message == f"No such container: {id}"


def test_execs_into_one_that_stops(havred: Engine) -> None:
    """An exec comes too late or in time; the container can be started again all the same."""
    id = create(havred, "busy")
    for _ in range(ROUNDS):
        assert post(havred, f"/containers/{id}/start")().status == 204
        made = [
            ask(havred.socket, "POST", f"/containers/{id}/exec", {"Cmd": ["true"], "AttachStdout": True})
            for _ in range(3)
        ]
        starts = [
            lambda target=f"/exec/{reply.json['Id']}/start": ask(havred.socket, "POST", target, {"Detach": True})  # type: ignore[misc]
            for reply in made
        ]
        killed, *begun = at_once(post(havred, f"/containers/{id}/kill"), *starts)
        assert killed.status == 204, killed.body
        assert all(reply.status in (200, 400, 404, 409) for reply in begun), begun
        assert ask(havred.socket, "POST", f"/containers/{id}/wait").status == 200
    assert delete(havred, f"/containers/{id}?force=1")().status == 204


def test_one_name_for_many(engine: Engine) -> None:
    target = "/containers/create?name=wanted"
    answers = at_once(*[lambda: ask(engine.socket, "POST", target, SLEEP)] * 8)
    assert sorted(reply.status for reply in answers) == [201, *[409] * 7]
    assert all("is already in use by container" in reply.message for reply in answers if reply.status == 409)
    engine.out("rm", "wanted")


@pytest.fixture
def fresh(archive: Path) -> Iterator[Engine]:
    """A daemon of the test's own, to be stopped and started again."""
    with serving(Havred(), archive) as engine:
        yield engine


@pytest.mark.parametrize("force", ["", "?force=1"])
def test_removal_during_a_start(fresh: Engine, force: str) -> None:
    """A start that is under way comes first; nothing of the container comes back with the daemon's next start."""
    for number in range(ROUNDS):
        id = create(fresh, f"brief{number}", HostConfig={"RestartPolicy": {"Name": "always"}})
        started, removed = at_once(post(fresh, f"/containers/{id}/start"), delete(fresh, f"/containers/{id}{force}"))
        assert (started.status, removed.status) in ((204, 204), (204, 409), (409, 204), (404, 204))
        if removed.status == 409:
            assert "stop the container before removing or force remove" in removed.message
            assert delete(fresh, f"/containers/{id}?force=1")().status == 204
        elif started.status == 204:
            assert force, "a container that runs was removed without force"
    fresh.stop()
    fresh.start()
    assert fresh.out("ps", "-aq") == ""


def test_renaming_during_a_removal(fresh: Engine) -> None:
    for number in range(ROUNDS):
        id = create(fresh, f"old{number}")
        renamed, removed = at_once(
            post(fresh, f"/containers/{id}/rename?name=new{number}"), delete(fresh, f"/containers/{id}")
        )
        assert (renamed.status, removed.status) in ((204, 204), (404, 204))
        # Both names are free again.
        for name in (f"old{number}", f"new{number}"):
            assert delete(fresh, f"/containers/{create(fresh, name)}")().status == 204
    fresh.stop()
    fresh.start()
    assert fresh.out("ps", "-aq") == ""

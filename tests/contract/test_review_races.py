"""Clients that act on one container at the same moment: each gets a sensible answer, and what is gone stays gone."""

from __future__ import annotations

import threading

import pytest

from support.engines import Engine
from support.raw import ask
from support.together import at_once, create, delete, post
from support.waiting import until

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


def test_many_short_runs_at_once(havred: Engine) -> None:
    """Fifty containers come and go together, each with its own output and exit code."""
    outcomes: list[tuple[int, str]] = []

    def run(number: int) -> None:
        done = havred.havre("run", "--rm", "busybox", "sh", "-c", f"echo {number}; exit {number}")
        outcomes.append((done.returncode, done.stdout.strip()))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(outcomes) == [(number, str(number)) for number in range(50)]
    until(lambda: havred.out("ps", "-aq") == "", "their removal")

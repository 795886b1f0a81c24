"""Requests sent at the same time, to find races."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from support.engines import Engine
from support.raw import Reply, ask


def at_once(*actions: Callable[[], Reply]) -> list[Reply]:
    """The responses to requests sent at the same time."""
    answers: dict[int, Reply] = {}

    def act(number: int, action: Callable[[], Reply]) -> None:
        answers[number] = action()

    threads = [threading.Thread(target=act, args=each) for each in enumerate(actions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return [answers[number] for number in range(len(actions))]


def create(engine: Engine, name: str, **fields: Any) -> str:
    """The ID of a new container that sleeps when started."""
    reply = ask(
        engine.socket,
        "POST",
        f"/containers/create?name={name}",
        {"Image": "busybox", "Cmd": ["sleep", "1000"], **fields},
    )
    assert reply.status == 201, reply.body
    return str(reply.json["Id"])


def post(engine: Engine, target: str) -> Callable[[], Reply]:
    """A POST to send."""
    return lambda: ask(engine.socket, "POST", target)


def delete(engine: Engine, target: str) -> Callable[[], Reply]:
    """A DELETE to send."""
    return lambda: ask(engine.socket, "DELETE", target)

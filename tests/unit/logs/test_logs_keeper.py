"""Containers whose log server takes nothing: the engine works on, and their ends come soon."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from havre.aio import in_thread
from havre.logs import Keeper, Subject, delivery, form_of, plan_log

TIMEOUT_S = 1.0
CONTAINERS = 20
#: More than a local socket holds.
LINES = b"2026-11-04T13:00:01.553420999Z stdout F %s\n" % (b"x" * 1000) * 1000


@dataclass
class Running:
    """A process, and its output, which has rung and waits no more."""

    told: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def output(self) -> Running:
        return self

    def alarm(self, ring: Callable[[], None]) -> None:
        self.told.set()

    def hold(self, held: bool) -> None:
        pass

    def has_ended(self) -> bool:
        return False

    async def reopen_log(self) -> None:
        raise AssertionError("no spool here is long")


async def begin(directory: Path, options: dict[str, str], number: int) -> Keeper:
    """A keeper whose container has written LINES."""
    subject = Subject(id=f"{number:064}", name="web", image_id="sha256:0", image_name="nginx", labels={}, env={})
    place = directory / str(number)
    place.mkdir()
    keeper = Keeper(plan_log("syslog", options, place, subject), form_of("syslog"), blocking=True)
    await keeper.open()
    (place / "ctr.log").write_bytes(LINES)
    process = Running()
    keeper.watch(process)
    await process.told.wait()
    return keeper


def test_log_servers_that_take_nothing_hold_up_neither_the_engine_nor_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "TIMEOUT_S", TIMEOUT_S)
    options = {"syslog-address": f"unix://{tmp_path}/syslog"}

    async def run() -> tuple[float, float]:
        keepers = [await begin(tmp_path, options, number) for number in range(CONTAINERS)]
        begun = time.monotonic()
        await in_thread(int)
        answered = time.monotonic()
        await asyncio.gather(*(keeper.end() for keeper in keepers))
        return answered - begun, time.monotonic() - answered

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{tmp_path}/syslog")
        server.listen(CONTAINERS * 10)
        answer_s, end_s = asyncio.run(run())
    assert answer_s < TIMEOUT_S / 2
    assert end_s < 3 * TIMEOUT_S
    for number in range(CONTAINERS):
        cache = tmp_path / str(number) / "container-cached.log"
        assert cache.read_bytes().count(b"\n") == 1000

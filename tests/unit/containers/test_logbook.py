"""The logbook: users' tags and patterns never cost the event loop; a log is whole to whom reads it at its end."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from havre.aio import in_thread
from havre.containers.container import Container
from havre.containers.streams import logbook
from havre.containers.streams.logbook import Logbook
from havre.logs import LogOptions, plan_log
from havre.logs.spool import Transcript
from havre.wire.config import Config, HostConfig, LogConfig
from support.rows import container_row


def logged(directory: Path) -> Container:
    """A container with a directory for its log."""
    container = container_row(
        "/c",
        id="c" * 64,
        config=Config(labels={"a": "1"}),
        host_config=HostConfig(log_config=LogConfig("json-file", {"tag": "{{.Name}}", "labels-regex": "a"})),
    )
    (directory / container.id).mkdir()
    return container


def test_plans_are_made_in_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places: list[threading.Thread] = []

    def note(*arguments: Any) -> Any:
        places.append(threading.current_thread())
        return plan_log(*arguments)

    monkeypatch.setattr(logbook, "plan_log", note)
    container = logged(tmp_path)

    async def work() -> None:
        book = Logbook(tmp_path)
        await book.open(container)
        await book.end(container)
        assert [lines async for lines in book.read(container, LogOptions())] == []
        await book.end(container)

    asyncio.run(asyncio.wait_for(work(), 20))
    assert len(places) == 3
    assert threading.main_thread() not in places


@pytest.mark.parametrize("follow", [False, True])
def test_who_reads_while_the_log_is_concluded_waits_for_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, follow: bool
) -> None:
    concluding, let_go, finish = threading.Event(), threading.Event(), Transcript.finish

    def slow(transcript: Transcript) -> None:
        if transcript is begun[0]:
            concluding.set()
            assert let_go.wait(10)
        finish(transcript)

    begun: list[Transcript] = []
    container = logged(tmp_path)

    async def work() -> None:
        book = Logbook(tmp_path)
        spool = await book.open(container)
        assert spool is not None
        begun.append(book._keepers[container.id]._transcript)  # type: ignore[arg-type]
        monkeypatch.setattr(Transcript, "finish", slow)
        spool.write_bytes(b"2026-11-04T13:00:01.553420999+00:00 stdout F last words\n")
        end = asyncio.create_task(book.end(container))
        await in_thread(concluding.wait, 10)

        async def read() -> list[bytes]:
            return [text async for lines in book.read(container, LogOptions(follow=follow)) for _, text in lines]

        reader = asyncio.create_task(read())
        await asyncio.wait({reader}, timeout=0.2)  # it would be done with nothing by then
        let_go.set()
        await end
        assert await reader == [b"last words\n"]

    asyncio.run(asyncio.wait_for(work(), 20))

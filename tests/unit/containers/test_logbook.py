"""The logbook: what users' tags and patterns cost is never the event loop's to pay."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from havre.containers.container import Container
from havre.containers.streams import logbook
from havre.containers.streams.logbook import Logbook
from havre.logs import LogOptions, plan_log
from havre.wire.config import Config, HostConfig, LogConfig


def test_plans_are_made_in_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places: list[threading.Thread] = []

    def note(*arguments: Any) -> Any:
        places.append(threading.current_thread())
        return plan_log(*arguments)

    monkeypatch.setattr(logbook, "plan_log", note)
    container = Container(
        id="c" * 64,
        name="/c",
        created="2026-01-01T00:00:00Z",
        image="sha256:1",
        path="x",
        args=[],
        config=Config(labels={"a": "1"}),
        host_config=HostConfig(log_config=LogConfig("json-file", {"tag": "{{.Name}}", "labels-regex": "a"})),
    )
    (tmp_path / container.id).mkdir()

    async def work() -> None:
        book = Logbook(tmp_path)
        await book.open(container)
        await book.end(container)
        assert [lines async for lines in book.read(container, LogOptions())] == []
        await book.end(container)

    asyncio.run(asyncio.wait_for(work(), 20))
    assert len(places) == 3
    assert threading.main_thread() not in places

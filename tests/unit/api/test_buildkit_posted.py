"""Builds by the classic endpoint: two requests of which one brings the context for the other, and do not meet."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from havre.api.buildkit import posted
from havre.builds.request import BuildRequest
from havre.errors import NotFound


class Lent:
    """What a control lends builds."""

    def __init__(self) -> None:
        self.bodies: dict[str, Any] = {}


class Asked:
    """A request for a build whose context comes by another one."""

    def text(self, name: str) -> str:
        return "upload-request" if name == "remote" else ""


async def _carried_out(call: object, work: Callable[[Callable[..., None]], Awaitable[None]]) -> None:
    await work(lambda *_: None)


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> posted.Posted:
    monkeypatch.setattr(posted, "_WAIT_S", 0.05)
    monkeypatch.setattr(posted, "stream_progress", _carried_out)
    return posted.Posted(control=Lent())  # type: ignore[arg-type]


def test_an_upload_after_the_build_has_given_up_waits_for_nobody(builds: posted.Posted) -> None:
    call: Any = Asked()

    async def work() -> None:
        with pytest.raises(NotFound, match="no upload has come for the build b"):
            await builds.build(call, BuildRequest(id="b"))
        with pytest.raises(NotFound, match="no build b wants the upload"):
            await asyncio.wait_for(builds.build(call, BuildRequest(id="upload-request:b")), 5)

    asyncio.run(work())


def test_an_upload_whose_client_has_left_is_not_waited_for(builds: posted.Posted) -> None:
    call: Any = Asked()

    async def work() -> None:
        uploading = asyncio.ensure_future(builds.build(call, BuildRequest(id="upload-request:b")))
        await asyncio.sleep(0)
        uploading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await uploading
        with pytest.raises(NotFound, match="no upload has come for the build b"):
            await builds._uploaded("b")

    asyncio.run(work())

"""As many transfers at a time as there may be; the next one is refused and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest

from havre.aio import MAX_TRANSFERS, in_own_thread
from havre.errors import Unavailable
from havre.storage.pipe import PipedStream


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_one_more_than_there_may_be() -> None:
    async def main() -> None:
        go_on = threading.Event()
        running = [in_own_thread(go_on.wait) for _ in range(MAX_TRANSFERS)]
        before = descriptors()
        with pytest.raises(Unavailable, match="256 transfers of files already"):
            PipedStream(lambda out: None)
        assert descriptors() == before
        go_on.set()
        await asyncio.gather(*running)
        stream = PipedStream(lambda out: out.write(b"again") and None)
        assert [piece async for piece in stream] == [b"again"]
        await stream.close()

    asyncio.run(main())

"""Output to several readers: order, bounds, closing."""

from __future__ import annotations

import asyncio

from havre.runtime.fanout import CHUNK, LAST_LIMIT, LIMIT, Fanout, Subscription


async def everything(subscription: Subscription) -> list[tuple[int, bytes]]:
    return [chunk async for chunk in subscription]


def test_all_readers_get_all_in_order_and_only_their_streams():
    async def body() -> None:
        fanout = Fanout()
        both, errors = fanout.subscribe(), fanout.subscribe(stdout=False)
        for stream, data in ((1, b"a"), (1, b"b"), (2, b"c"), (1, b"d")):
            assert fanout.publish(stream, data)
        late = fanout.subscribe()
        fanout.publish(1, b"e")
        fanout.close()
        assert await everything(both) == [(1, b"ab"), (2, b"c"), (1, b"de")]
        assert await everything(errors) == [(2, b"c")]
        assert await everything(late) == [(1, b"e")]
        assert await everything(fanout.subscribe()) == []

    asyncio.run(body())


def test_a_waiting_reader_is_woken_by_data_and_by_the_end():
    async def body() -> None:
        fanout = Fanout()
        reading = asyncio.create_task(everything(fanout.subscribe()))
        await asyncio.sleep(0)
        fanout.publish(1, b"x")
        await asyncio.sleep(0)
        fanout.close()
        assert await reading == [(1, b"x")]

    asyncio.run(body())


def test_the_slowest_reader_holds_until_half_way_down():
    async def body() -> None:
        calls: list[str] = []
        fanout = Fanout()
        fanout.room = lambda: calls.append("room")
        fast, slow = fanout.subscribe(), fanout.subscribe()
        packet = b"x" * CHUNK
        while fanout.publish(1, packet):
            await anext(fast)
        taken = 0
        while not calls:
            taken += len((await anext(slow))[1])
        assert LIMIT // 2 <= taken <= LIMIT // 2 + CHUNK
        assert fanout.publish(1, packet)

    asyncio.run(body())


def test_a_reader_that_leaves_holds_nobody():
    async def body() -> None:
        calls: list[str] = []
        fanout = Fanout()
        fanout.room = lambda: calls.append("room")
        reader = fanout.subscribe()
        assert not fanout.publish(1, b"x" * LIMIT)
        reader.close()
        reader.close()
        assert calls == ["room"]
        assert await everything(reader) == []
        assert fanout.publish(1, b"x" * 2 * LIMIT)

    asyncio.run(body())


def test_at_the_end_nobody_is_waited_for_and_memory_stays_bounded():
    async def body() -> None:
        calls: list[str] = []
        fanout = Fanout()
        fanout.room = lambda: calls.append("room")
        reader = fanout.subscribe()
        assert not fanout.publish(1, b"x" * LIMIT)
        fanout.hurry()
        assert calls == ["room"]
        for _ in range(200):
            assert fanout.publish(1, b"y" * CHUNK)
        fanout.close()
        size = sum(len(data) for _, data in await everything(reader))
        assert LAST_LIMIT <= size <= LAST_LIMIT + CHUNK

    asyncio.run(body())

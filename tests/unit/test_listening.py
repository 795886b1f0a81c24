"""Connections within a budget: nobody takes all, and who waits is served in the end."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from havre.listening import Acceptor, Budget, share_of


def test_nobody_holds_more_than_is_left_for_others() -> None:
    budget = Budget(12)
    assert [budget.take("greedy") for _ in range(9)] == [True] * 6 + [False] * 3
    assert [budget.take("next") for _ in range(4)] == [True] * 3 + [False]
    assert [budget.take("third") for _ in range(3)] == [True, True, False]
    assert budget.take("fourth")
    assert budget.is_full or budget.used == 12


def test_each_has_a_limit_of_its_own_too() -> None:
    budget = Budget(100, each=2)
    assert [budget.take("one") for _ in range(3)] == [True, True, False]
    assert budget.take("other")


@pytest.mark.parametrize(
    ("address", "share"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::4", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_addresses_that_one_host_has_share(address: str, share: str) -> None:
    assert share_of(address) == share


@contextmanager
def _listening() -> Iterator[tuple[socket.socket, Any]]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening, listening.getsockname()


def _clients(stack: ExitStack, address: Any, count: int) -> list[socket.socket]:
    made = [stack.enter_context(socket.create_connection(address)) for _ in range(count)]
    for each in made:
        each.setblocking(False)
    return made


async def _greet(accepted: socket.socket) -> None:
    """Say hello and wait for the client's end."""
    loop = asyncio.get_running_loop()
    with accepted:
        await loop.sock_sendall(accepted, b"hello")
        await loop.sock_recv(accepted, 1)


async def _served(client: socket.socket, timeout_s: float = 10) -> bool:
    try:
        async with asyncio.timeout(timeout_s):
            return await asyncio.get_running_loop().sock_recv(client, 5) == b"hello"
    except TimeoutError:
        return False


def test_who_finds_no_room_waits_for_it() -> None:
    async def work(address: Any, listening: socket.socket, stack: ExitStack) -> None:
        budget = Budget(100, each=3)
        acceptor = Acceptor(listening, _greet, budget, "box")
        clients = _clients(stack, address, 5)
        assert [await _served(each) for each in clients[:3]] == [True] * 3
        assert budget.used == 3
        waiting = asyncio.ensure_future(_served(clients[3]))
        await asyncio.sleep(0)
        assert not waiting.done()
        clients[0].close()
        assert await waiting
        clients[1].close()
        assert await _served(clients[4])
        assert budget.used == 3
        acceptor.close()

    with _listening() as (listening, address), ExitStack() as stack:
        asyncio.run(work(address, listening, stack))


def test_room_goes_round_until_all_are_served() -> None:
    async def visit(client: socket.socket) -> bool:
        served = await _served(client)
        client.close()
        return served

    async def work(places: list[tuple[socket.socket, Any]], stack: ExitStack) -> None:
        budget = Budget(2)
        acceptors = [Acceptor(listening, _greet, budget, number) for number, (listening, _) in enumerate(places)]
        clients = [client for _, address in places for client in _clients(stack, address, 10)]
        assert await asyncio.gather(*map(visit, clients)) == [True] * 30
        for acceptor in acceptors:
            acceptor.close()

    with _listening() as one, _listening() as two, _listening() as three, ExitStack() as stack:
        asyncio.run(work([one, two, three], stack))


def test_an_address_that_has_its_share_is_sent_away() -> None:
    async def work(address: Any, listening: socket.socket, stack: ExitStack) -> None:
        acceptor = Acceptor(listening, _greet, Budget(100, each=1))
        kept, surplus = _clients(stack, address, 2)
        assert await _served(kept)
        assert await asyncio.get_running_loop().sock_recv(surplus, 5) == b""
        (other,) = [stack.enter_context(socket.create_connection(address, source_address=("127.0.0.2", 0)))]
        other.setblocking(False)
        assert await _served(other)
        acceptor.close()

    with _listening() as (listening, address), ExitStack() as stack:
        asyncio.run(work(address, listening, stack))


def test_who_is_accepted_as_it_closes_is_not_served() -> None:
    acceptor: Any = None

    class Last(socket.socket):
        def accept(self) -> tuple[socket.socket, Any]:
            accepted = super().accept()
            asyncio.get_running_loop().call_soon(lambda: acceptor.close())
            return accepted

    async def work(address: Any, listening: socket.socket, stack: ExitStack) -> None:
        nonlocal acceptor
        budget = Budget(10)
        acceptor = Acceptor(stack.enter_context(Last(fileno=listening.detach())), _greet, budget, "box")
        (client,) = _clients(stack, address, 1)
        assert not await _served(client)
        assert budget.used == 0

    with _listening() as (listening, address), ExitStack() as stack:
        asyncio.run(work(address, listening, stack))


def test_a_socket_is_left_to_another_acceptor() -> None:
    async def work() -> bool:
        with _listening() as (listening, address), ExitStack() as stack:
            Acceptor(listening, _greet).stop()
            heir = Acceptor(listening, _greet)
            served = await _served(_clients(stack, address, 1)[0])
            heir.close()
            return served and listening.fileno() < 0

    assert asyncio.run(work())


def test_without_descriptors_it_says_so_once_and_tries_again(caplog: pytest.LogCaptureFixture) -> None:
    class Poor(socket.socket):
        refusals = 1

        def accept(self) -> tuple[socket.socket, Any]:
            if self.refusals:
                self.refusals -= 1
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return super().accept()

    async def work(address: Any, listening: socket.socket, stack: ExitStack) -> None:
        poor = stack.enter_context(Poor(fileno=listening.detach()))
        acceptor = Acceptor(poor, _greet)
        assert await _served(*_clients(stack, address, 1))
        acceptor.close()

    with _listening() as (listening, address), ExitStack() as stack, caplog.at_level(logging.ERROR):
        asyncio.run(work(address, listening, stack))
    assert len(caplog.records) == 1
    assert "Too many open files" in caplog.text

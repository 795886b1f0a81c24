"""Relays traffic that arrives at a published port's own socket to the container.

nftables translates IPv4 in the kernel, so a relay serves the rest: IPv6 to a container without it, and all traffic
while another program has flushed the rules. The container sees the bridge's gateway as its peer.

    client ──▶ [::]:8080 (held by Ports) ── daemon ──▶ 172.17.0.2:80

TCP half-close is preserved. UDP has one socket per client, closed after 30 s idle. The number of clients is limited,
per
container and in total: beyond it, connections wait and datagrams are dropped.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any

from havre.listening import Acceptor, Budget, descriptors

log = logging.getLogger(__name__)

Target = tuple[str, int]

_CHUNK_BYTES = 1 << 16
_UDP_IDLE_S = 30.0
_UDP_CLIENTS = 1024


def relay_budget() -> Budget:
    """Limit of clients of all relays of a daemon. A TCP client costs two descriptors, a UDP client one."""
    return Budget(descriptors(8))


class Relay:
    """Serves one bound socket; `close` ends it and its connections, not the socket."""

    def __init__(self, held: socket.socket, protocol: str, target: Target, budget: Budget | None = None) -> None:
        """Serve a bound, non-blocking ("tcp": listening) socket, which the caller closes after the relay.

        Clients count against the share of `budget` of the container at the target's address.
        """
        self._target = target
        self._connections: set[asyncio.Task[Any]] = set()
        budget = budget or relay_budget()
        if protocol == "tcp":
            self._near: Acceptor | _Datagrams = Acceptor(held, self._connected, budget, target[0])
        else:
            self._near = _Datagrams(held, target, budget)

    def leave(self) -> None:
        """Accept no new clients; connections continue. Idempotent."""
        self._near.stop()

    def close(self) -> None:
        """Stop serving. Idempotent."""
        self.leave()
        for task in self._connections:
            task.cancel()

    async def _connected(self, accepted: socket.socket) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        reader, writer = await asyncio.open_connection(sock=accepted)
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
            try:
                await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
            finally:
                far_writer.close()
        except OSError as error:
            log.debug("relay to %s port %d ended: %s", *self._target, error)
        finally:
            writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(_CHUNK_BYTES):
        writer.write(chunk)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


class _Datagrams:
    """The near side of a UDP relay: maps clients to their far sides."""

    def __init__(self, held: socket.socket, target: Target, budget: Budget) -> None:
        self._socket = held
        self._target = target
        self._budget = budget
        self._clients: dict[Any, _Answers] = {}
        self._stopped = False
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(held, self._readable)

    def _readable(self) -> None:
        try:
            data, addr = self._socket.recvfrom(_CHUNK_BYTES)
        except OSError as error:  # an ICMP error for an answer sent earlier: udp(7)
            log.debug("relay of a datagram failed: %s", error)
            return
        client = self._clients.get(addr) or self._open(addr)
        if client is not None:
            client.send(data)

    def _open(self, addr: Any) -> _Answers | None:
        """Open a far side for a new client; None above the limit, or on an error."""
        if len(self._clients) >= _UDP_CLIENTS or not self._budget.take(self._target[0]):
            return None
        try:
            client = self._clients[addr] = _Answers(self, addr, self._target)
        except OSError as error:
            self._budget.give(self._target[0])
            log.warning("relay to %s port %d cannot serve another client: %s", *self._target, error)
            return None
        return client

    def answer(self, data: bytes, addr: Any) -> None:
        """Send a container's datagram to its client."""
        try:
            self._socket.sendto(data, addr)
        except OSError as error:  # its buffer is full, or the client is unreachable: the client will retry
            log.debug("relay of an answer failed: %s", error)

    def forget(self, addr: Any) -> None:
        """Remove a client whose far side has closed."""
        if self._clients.pop(addr, None) is not None:
            self._budget.give(self._target[0])

    def stop(self) -> None:
        """Stop reading, and close every far side. Idempotent."""
        if self._stopped:
            return
        self._stopped = True
        self._loop.remove_reader(self._socket)
        for client in list(self._clients.values()):
            client.close()


class _Answers:
    """The far side of one UDP client: a connected socket to the container, read by the event loop."""

    def __init__(self, near: _Datagrams, addr: Any, target: Target) -> None:
        self._near = near
        self._addr = addr
        self._loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._timer: asyncio.TimerHandle | None = None
        try:
            self._socket.connect(target)
        except OSError:
            self._socket.close()
            raise
        self._loop.add_reader(self._socket, self._readable)

    def send(self, data: bytes) -> None:
        self._touch()
        try:
            self._socket.send(data)
        except OSError as error:  # refused, or its buffer is full: UDP is unreliable, the client will retry
            log.debug("relay of a datagram failed: %s", error)

    def close(self) -> None:
        self._loop.remove_reader(self._socket)
        if self._timer is not None:
            self._timer.cancel()
        self._socket.close()
        self._near.forget(self._addr)

    def _readable(self) -> None:
        try:
            data = self._socket.recv(_CHUNK_BYTES)
        except OSError as error:
            log.debug("no answer to a relayed datagram: %s", error)
            return
        self._touch()
        self._near.answer(data, self._addr)

    def _touch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(_UDP_IDLE_S, self.close)

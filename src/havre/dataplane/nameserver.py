"""The embedded name server of a container: 127.0.0.11, UDP and TCP.

Sockets are opened inside the container's network namespace and served by the daemon's event loop. They have ports of
the kernel's choice, so that a container may run its own name server on 0.0.0.0:53; rules in the namespace rewrite the
port in both directions. Connection tracking is bypassed where the kernel allows it: an entry for each query fills its
table.

    container ──▶ 127.0.0.11:53 ──(port rewritten)──▶ our socket ── View ── known: answered at once
                                                             └─── else: Upstream, a fresh socket each time

conmon inherits both sockets. Queries queue in them while no daemon runs; the next daemon takes them back from conmon
(pidfd_getfd(2)) and answers. Clients time out after 5 to 10 s, so a restart goes unnoticed. A container without names
has such sockets, too, unbound: it may later be connected to a network that has names.

Names of the container's networks are answered here, also with "no such record"; other queries are forwarded to the
upstream servers in turn, with a random ID and source port. Without upstream servers (on internal networks) nothing is
forwarded: queries must not carry data out (CVE-2024-29018).

So that a container cannot exhaust the daemon's descriptors, connections and forwarded queries are limited (`Quota`),
per container and in total. Further connections wait in the kernel's backlog of 64, further forwarded queries fail.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import secrets
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from havre.aio import in_thread, spawn
from havre.dataplane import dnswire
from havre.dataplane.dnswire import Question
from havre.dataplane.zones import View
from havre.linux import pidfd
from havre.linux.namespaces import in_netns
from havre.linux.portrules import PortRule, has_table, replace_table
from havre.listening import Acceptor, Budget, descriptors

log = logging.getLogger(__name__)

ADDRESS = "127.0.0.11"
_BATCH = 32
_REST = 8  # pause between batches, in multiples of a batch's time: floods get an eighth of the event loop's time
_BURST_S = 2.0  # pauses that may be owed: a quarter of a second of answers goes without a pause
_BYTES = 65535
_SERVER_TIMEOUT_S = 3.0
_CLIENT_IDLE_S = 2.0  # RFC 7766, section 6.2.3: a few seconds, and less under load
_CONNECTION_S = 20.0
_FORWARDED = 256
_CONNECTIONS = 64
_TABLE = "havre_dns"
_PORT = 53
_NO_RULES = (errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.ENOENT)  # without nftables, or without its family ip

OpenSocket = Callable[[int, int], Awaitable[socket.socket]]
"""Opens a socket of an address family and a type in the network namespace from which an upstream server is queried."""


@dataclass(frozen=True)
class Upstream:
    """Upstream servers, and the namespace to query them from: the container's, or (None) the daemon's."""

    servers: tuple[str, ...] = ()
    netns: Path | None = None

    async def open(self, family: int, kind: int) -> socket.socket:
        """Open a socket for a query."""
        flags = kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        if self.netns is None:
            return socket.socket(family, flags)
        return await in_thread(in_netns, self.netns, lambda: socket.socket(family, flags))


@dataclass
class Quota:
    """Limits of all containers' name servers together: connections, and queries forwarded upstream.

    Servers under continuous load share a part of the event loop's time: `rest` after each batch. Bursts do not rest.
    """

    connections: Budget = field(default_factory=lambda: Budget(descriptors(16), _CONNECTIONS))
    forwarded: Budget = field(default_factory=lambda: Budget(descriptors(8), _FORWARDED))
    _free_at: float = 0.0

    def rest(self, begun: float, ended: float) -> float:
        """Seconds that a server pauses after a batch that ran from `begun` to `ended`."""
        self._free_at = max(self._free_at, begun) + _REST * (ended - begun)
        return max(0.0, self._free_at - ended - _BURST_S)


@dataclass(frozen=True)
class Sockets:
    """The server's UDP and TCP sockets."""

    datagrams: socket.socket
    stream: socket.socket

    @property
    def descriptors(self) -> tuple[int, int]:
        """The descriptors of both."""
        return self.datagrams.fileno(), self.stream.fileno()

    @property
    def are_bound(self) -> bool:
        """Report whether both are bound."""
        return all(each.getsockname()[1] for each in (self.datagrams, self.stream))

    def lead(self) -> None:
        """Redirect port 53 of the calling thread's namespace (the sockets') to them. Blocking; OSError.

        On a kernel without rules they bind port 53 themselves, which prevents the container's own server from using it.
        """
        sockets = (self.datagrams, self.stream)
        fresh = [each for each in sockets if each.getsockname()[1] == 0]
        for each in fresh:
            each.bind((ADDRESS, 0))
        try:
            if any(each.getsockname()[1] != _PORT for each in sockets):
                replace_table(_TABLE, plan_rules(*(each.getsockname()[1] for each in sockets)))
        except OSError as error:
            if error.errno not in _NO_RULES or len(fresh) < len(sockets):
                raise
            for each in sockets:
                _bind_anew(each)
        self.stream.listen(_CONNECTIONS)

    def close(self) -> None:
        """Close both."""
        self.datagrams.close()
        self.stream.close()


def _bind_anew(bound: socket.socket) -> None:
    """Replace a socket by one bound to port 53, under the same descriptor."""
    with socket.socket(bound.family, bound.type) as other:
        other.bind((ADDRESS, _PORT))
        os.dup2(other.fileno(), bound.fileno(), inheritable=False)
    bound.setblocking(False)


def make_sockets() -> Sockets:
    """Open both sockets in the calling thread's namespace, without rules."""
    flags = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    return Sockets(
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM | flags),
        socket.socket(socket.AF_INET, socket.SOCK_STREAM | flags),
    )


def open_sockets() -> Sockets:
    """Open both sockets and add the rules that redirect port 53, in the calling thread's namespace. Blocking;
    OSError."""
    sockets = make_sockets()
    try:
        sockets.lead()
    except BaseException:
        sockets.close()
        raise
    return sockets


def are_led() -> bool:
    """Report whether port 53 of the calling thread's namespace is redirected to our sockets. Blocking; OSError."""
    return has_table(_TABLE)


def find_sockets(pid: int) -> Sockets | None:
    """Duplicate the sockets that a container's conmon (the parent of its first process, `pid`) inherited; None
    without."""
    holder = pidfd.parent(pid)
    handle = pidfd.open_process(holder) if holder > 1 else None
    if handle is None:
        return None
    found: dict[int, socket.socket] = {}
    try:
        for entry in Path(f"/proc/{holder}/fd").iterdir():
            kept = _kept_socket(handle, entry)
            if kept is not None:
                found[kept.type] = kept
    except FileNotFoundError:  # the process is ending
        pass
    finally:
        os.close(handle)
    if found.keys() == {socket.SOCK_DGRAM, socket.SOCK_STREAM}:
        return Sockets(found[socket.SOCK_DGRAM], found[socket.SOCK_STREAM])
    for kept in found.values():
        kept.close()
    return None


def _kept_socket(handle: int, entry: Path) -> socket.socket | None:
    """A socket bound to our address or unbound, by its entry in /proc/PID/fd of the process of pidfd `handle`."""
    try:
        if not os.readlink(entry).startswith("socket:"):
            return None
        kept = socket.socket(fileno=pidfd.take_descriptor(handle, int(entry.name)))
    except OSError as error:  # closed meanwhile, or a kernel older than 5.6
        log.debug("cannot duplicate descriptor %s of a container's conmon: %s", entry.name, error)
        return None
    if kept.family == socket.AF_INET and (kept.getsockname()[0] == ADDRESS or kept.getsockname() == ("0.0.0.0", 0)):
        return kept
    kept.close()
    return None


def plan_rules(udp_port: int, tcp_port: int) -> list[PortRule]:
    """The rules that redirect port 53 of `ADDRESS` to these ports, and rewrite the source port of answers to 53."""
    ports = ((socket.IPPROTO_UDP, udp_port), (socket.IPPROTO_TCP, tcp_port))
    there = [PortRule(protocol, IPv4Address(ADDRESS), 53, port) for protocol, port in ports]
    back = [PortRule(protocol, IPv4Address(ADDRESS), port, 53, source=True) for protocol, port in ports]
    return there + back


class NameServer:
    """One container's name server. Close it with `close`."""

    def __init__(
        self, sockets: Sockets, view: View, upstream: Upstream, quota: Quota | None = None, name: str = ""
    ) -> None:
        self.name = name
        self.view = view
        self.upstream = upstream
        self._quota = quota or Quota()
        self._sockets = sockets
        self._acceptor: Acceptor | None = None
        self._pending: set[asyncio.Task[Any]] = set()
        self._opening = asyncio.Lock()
        self._resting: asyncio.TimerHandle | None = None

    @classmethod
    async def serve(
        cls, sockets: Sockets, view: View, upstream: Upstream, quota: Quota | None = None, name: str = ""
    ) -> NameServer:
        """Start to answer on `sockets`, which the server then owns. `name` is the container's, for the log."""
        server = cls(sockets, view, upstream, quota, name)
        asyncio.get_running_loop().add_reader(sockets.datagrams, server._readable)
        server._acceptor = Acceptor(sockets.stream, server._connected, server._quota.connections, server)
        return server

    def close(self) -> None:
        """Stop, and cancel pending queries. Idempotent."""
        if self._sockets.datagrams.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._sockets.datagrams)
        if self._resting is not None:
            self._resting.cancel()
        if self._acceptor is not None:
            self._acceptor.close()
        for task in self._pending:
            task.cancel()
        self._sockets.close()

    # -- answering

    def answer(self, message: bytes) -> tuple[Question | None, bytes | None]:
        """The question, and the answer where we know it; (None, None) means that the query is ignored."""
        question = dnswire.parse_question(message)
        if question is None:
            return None, None
        if question.type in (dnswire.A, dnswire.AAAA, dnswire.MX):
            addresses = self.view.resolve(question.name)
            if addresses is not None:
                return question, dnswire.render_addresses(question, addresses if question.type != dnswire.MX else [])
        elif question.type == dnswire.PTR:
            text = dnswire.reversed_address(question.name)
            if text and (name := self.view.name_of(text)) is not None:
                return question, dnswire.render_name(question, name)
        if self.upstream.servers and not self._quota.forwarded.has_room(self):
            log.warning("container %s has too many pending DNS queries: another one fails", self.name)
            return question, dnswire.render_code(question, dnswire.SERVER_FAILURE)
        if not self.upstream.servers:
            return question, dnswire.render_code(question, dnswire.SERVER_FAILURE)
        return question, None

    def _readable(self) -> None:
        near, loop = self._sockets.datagrams, asyncio.get_running_loop()
        begun = loop.time()
        for _ in range(_BATCH):
            try:
                message, client = near.recvfrom(_BYTES)
            except BlockingIOError:
                return
            question, answer = self.answer(message)
            if question is None:
                continue
            if answer is None:
                self._start(self._forward_datagram(message, question, client))
            else:
                self._reply(dnswire.fit(question, answer), client)
        loop.remove_reader(near)
        self._resting = loop.call_later(self._quota.rest(begun, loop.time()), loop.add_reader, near, self._readable)

    def _reply(self, answer: bytes, client: Any) -> None:
        try:
            self._sockets.datagrams.sendto(answer, client)
        except OSError as error:  # closed, or its buffer is full: UDP is unreliable, the client will retry
            log.debug("an answer was not sent: %s", error)

    def _start(self, work: Any) -> None:
        task = spawn(work, "dns")
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    async def _forward_datagram(self, message: bytes, question: Question, client: Any) -> None:
        self._reply(await self._ask_all(message, question, _ask_by_udp), client)

    async def _connected(self, accepted: socket.socket) -> None:
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)
        reader, writer = await asyncio.open_connection(sock=accepted)
        try:
            async with asyncio.timeout(_CONNECTION_S):
                while True:
                    async with asyncio.timeout(_CLIENT_IDLE_S):
                        message = await _read_message(reader)
                    begun = loop.time()
                    question, answer = self.answer(message)
                    rest_s = 0.0 if answer is None else self._quota.rest(begun, loop.time())
                    if question is None:
                        return
                    writer.write(_framed(answer or await self._ask_all(message, question, _ask_by_tcp)))
                    async with asyncio.timeout(_CLIENT_IDLE_S):
                        await writer.drain()
                    await asyncio.sleep(rest_s)  # thousands of queries may be buffered: reading them would never wait
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            log.debug("a client's connection ended: %s", error)
        finally:
            writer.transport.abort()  # a client that does not read must not keep the connection open

    # -- forwarding

    async def _ask_all(self, message: bytes, question: Question, ask: Ask) -> bytes:
        """The first successful answer of the servers in turn, else the last failure, else SERVFAIL."""
        last = dnswire.render_code(question, dnswire.SERVER_FAILURE)
        if not self._quota.forwarded.take(self):
            return last
        try:
            for server in self.upstream.servers:
                try:
                    async with asyncio.timeout(_SERVER_TIMEOUT_S):
                        last = await ask(self._open, server, message, question)
                except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
                    log.debug("name server %s does not answer: %s", server, error)
                    continue
                if dnswire.code_of(last) != dnswire.SERVER_FAILURE:
                    break
        finally:
            self._quota.forwarded.give(self)
        return last

    async def _open(self, family: int, kind: int) -> socket.socket:
        """Open a socket for a query; one at a time, since it may occupy a thread of the shared pool."""
        async with self._opening:
            return await self.upstream.open(family, kind)


Ask = Callable[[OpenSocket, str, bytes, Question], Awaitable[bytes]]


async def _ask_by_udp(open: OpenSocket, server: str, message: bytes, question: Question) -> bytes:
    loop = asyncio.get_running_loop()
    id = secrets.randbelow(1 << 16)
    with await open(_family(server), socket.SOCK_DGRAM) as far:
        await loop.sock_connect(far, (server, 53))
        await loop.sock_sendall(far, dnswire.with_id(message, id))
        while True:
            answer = await loop.sock_recv(far, _BYTES)
            if dnswire.answers(answer, id, question):
                return dnswire.with_id(answer, question.id)


async def _ask_by_tcp(open: OpenSocket, server: str, message: bytes, question: Question) -> bytes:
    id = secrets.randbelow(1 << 16)
    far = await open(_family(server), socket.SOCK_STREAM)
    try:
        await asyncio.get_running_loop().sock_connect(far, (server, 53))
        reader, writer = await asyncio.open_connection(sock=far)
    except BaseException:
        far.close()
        raise
    try:
        writer.write(_framed(dnswire.with_id(message, id)))
        answer = await _read_message(reader)
    finally:
        writer.close()
    if not dnswire.answers(answer, id, question):
        raise OSError(f"{server} answered another question")
    return dnswire.with_id(answer, question.id)


def _family(server: str) -> int:
    return socket.AF_INET6 if ":" in server else socket.AF_INET


async def _read_message(reader: asyncio.StreamReader) -> bytes:
    (length,) = struct.unpack(">H", await reader.readexactly(2))
    return await reader.readexactly(length)


def _framed(message: bytes) -> bytes:
    return struct.pack(">H", len(message)) + message

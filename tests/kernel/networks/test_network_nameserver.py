"""The name server in a container's namespace: UDP, TCP, beside a server of the container's own, forwarding."""

from __future__ import annotations

import asyncio
import errno
import functools
import socket
import threading
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import dns.message
import dns.query
import pytest

from havre.dataplane import nameserver
from havre.dataplane.nameserver import NameServer, Sockets, Upstream
from havre.dataplane.zones import View, Zone
from havre.linux import netlink
from havre.linux.namespaces import create_netns, delete_netns, in_netns
from havre.linux.netlink import Netlink


def _open() -> Sockets:
    with Netlink() as own:
        own.run(netlink.set_up(1))
    return nameserver.open_sockets()


@pytest.fixture
def box(tmp_path: Path) -> Iterator[tuple[Path, Sockets]]:
    """A namespace that stands for a container, with the sockets of its name server."""
    path = tmp_path / "box" / "net"
    sockets = create_netns(path, _open)
    yield path, sockets
    sockets.close()
    delete_netns(path)


@pytest.fixture
def host_resolver() -> Iterator[list[str]]:
    """A resolver on the host's loopback; the names it was asked for. By UDP it sends a forged answer first."""
    asked: list[str] = []
    near = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    near.bind(("127.0.0.1", 53))
    stream = socket.create_server(("127.0.0.1", 53))

    def reply(data: bytes) -> bytes:
        query = dns.message.from_wire(data)
        asked.append(str(query.question[0].name))
        answer = dns.message.make_response(query)
        answer.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "A", "203.0.113.7"))
        return answer.to_wire()

    def datagrams() -> None:
        while (received := near.recvfrom(4096))[0] != b"end":
            forged = bytearray(reply(received[0]))
            forged[0] ^= 0xFF
            near.sendto(forged, received[1])
            near.sendto(reply(received[0]), received[1])

    def connections() -> None:
        while True:
            client, _ = stream.accept()
            with client:
                data = client.recv(4096)
                if data == b"end":
                    return
                answer = reply(data[2:])
                client.sendall(len(answer).to_bytes(2, "big") + answer)

    threads = [threading.Thread(target=datagrams), threading.Thread(target=connections)]
    for thread in threads:
        thread.start()
    yield asked
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
        last.sendto(b"end", ("127.0.0.1", 53))
    with socket.create_connection(("127.0.0.1", 53)) as end:
        end.sendall(b"end")
    for thread in threads:
        thread.join()
    near.close()
    stream.close()


def _view() -> View:
    zone = Zone("front")
    zone.add("e", ["web"], [ip_address("10.0.0.2")])
    return View([zone])


def _ask(path: Path, name: str, ask: Callable[..., dns.message.Message]) -> list[str]:
    """What a program in the container learns: addresses, or the response code."""
    query = dns.message.make_query(name, "A")
    reply = in_netns(path, functools.partial(ask, query, "127.0.0.11", timeout=5))
    return [str(record) for record in reply.answer[0]] if reply.answer else [str(reply.rcode())]


def _serving(sockets: Sockets, upstream: Upstream, work: Callable[[], Any]) -> Any:
    async def run() -> Any:
        server = await NameServer.serve(sockets, _view(), upstream)
        try:
            return await asyncio.to_thread(work)
        finally:
            server.close()

    return asyncio.run(run())


def test_own_names_and_the_host_loopback_resolver(box: tuple[Path, Sockets], host_resolver: list[str]) -> None:
    path, sockets = box

    def work() -> None:
        for ask in (dns.query.udp, dns.query.tcp):
            assert _ask(path, "web", ask) == ["10.0.0.2"]
            assert host_resolver == []
            assert _ask(path, "example.org", ask) == ["203.0.113.7"]
            assert host_resolver
            host_resolver.clear()

    _serving(sockets, Upstream(("127.0.0.1",)), work)


def test_nothing_leaves_without_an_upstream(box: tuple[Path, Sockets], host_resolver: list[str]) -> None:
    path, sockets = box

    def work() -> None:
        for ask in (dns.query.udp, dns.query.tcp):
            assert _ask(path, "secret.example.org", ask) == ["2"]

    _serving(sockets, Upstream(), work)
    assert host_resolver == []


def test_a_container_may_have_a_name_server_of_its_own(box: tuple[Path, Sockets]) -> None:
    path, sockets = box

    def work() -> list[str]:
        def bound() -> list[socket.socket]:
            own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            own.bind(("0.0.0.0", 53))
            return [own, socket.create_server(("0.0.0.0", 53))]

        theirs = in_netns(path, bound)
        try:
            return [*_ask(path, "web", dns.query.udp), *_ask(path, "web", dns.query.tcp)]
        finally:
            for each in theirs:
                each.close()

    assert _serving(sockets, Upstream(), work) == ["10.0.0.2", "10.0.0.2"]


def test_without_rules_it_takes_the_port_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, rules: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "nf_tables: message 1: Operation not supported")

    monkeypatch.setattr("havre.dataplane.nameserver.replace_table", refuse)
    path = tmp_path / "box" / "net"
    sockets = create_netns(path, _open)

    def work() -> list[str]:
        return [*_ask(path, "web", dns.query.udp), *_ask(path, "web", dns.query.tcp)]

    assert [each.getsockname() for each in (sockets.datagrams, sockets.stream)] == [("127.0.0.11", 53)] * 2
    assert _serving(sockets, Upstream(), work) == ["10.0.0.2", "10.0.0.2"]
    delete_netns(path)

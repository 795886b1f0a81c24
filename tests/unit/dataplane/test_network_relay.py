"""The relay passes bytes and ends on, over loopback."""

from __future__ import annotations

import asyncio
import socket

from havre.dataplane.relay import Relay


def _bound(kind: socket.SocketKind) -> socket.socket:
    held = socket.socket(socket.AF_INET6, kind | socket.SOCK_NONBLOCK)
    held.bind(("::1", 0))
    if kind == socket.SOCK_STREAM:
        held.listen()
    return held


def test_tcp_is_passed_on_with_half_closed_ends() -> None:
    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"%d" % len(await reader.read()))
        writer.close()

    async def work() -> bytes:
        server = await asyncio.start_server(count, "127.0.0.1", 0)
        with _bound(socket.SOCK_STREAM) as held:
            relay = Relay(held, "tcp", server.sockets[0].getsockname())
            reader, writer = await asyncio.open_connection(*held.getsockname()[:2])
            writer.write(bytes(1_000_000))
            writer.write_eof()
            answer = await reader.read()
            writer.close()
            relay.close()
            server.close()
        return answer

    assert asyncio.run(asyncio.wait_for(work(), 20)) == b"1000000"


def test_a_container_that_does_not_answer_ends_the_connection() -> None:
    async def work() -> bytes:
        with socket.socket() as nobody, _bound(socket.SOCK_STREAM) as held:
            nobody.bind(("127.0.0.1", 0))
            relay = Relay(held, "tcp", nobody.getsockname())
            reader, writer = await asyncio.open_connection(*held.getsockname()[:2])
            answer = await reader.read()
            writer.close()
            relay.close()
        return answer

    assert asyncio.run(asyncio.wait_for(work(), 20)) == b""


def test_udp_answers_go_to_the_client_that_asked() -> None:
    async def work() -> list[bytes]:
        loop = asyncio.get_running_loop()
        with socket.socket(type=socket.SOCK_DGRAM) as server, _bound(socket.SOCK_DGRAM) as held:
            server.setblocking(False)
            server.bind(("127.0.0.1", 0))
            relay = Relay(held, "udp", server.getsockname())
            clients = [socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) for _ in range(3)]
            answers = []
            for number, client in enumerate(clients):
                client.connect(held.getsockname())
                await loop.sock_sendall(client, b"%d" % number)
                asked, peer = await loop.sock_recvfrom(server, 100)
                await loop.sock_sendto(server, b"re:" + asked, peer)
            for client in clients:
                answers.append(await loop.sock_recv(client, 100))
                client.close()
            relay.close()
        return answers

    assert asyncio.run(asyncio.wait_for(work(), 20)) == [b"re:0", b"re:1", b"re:2"]

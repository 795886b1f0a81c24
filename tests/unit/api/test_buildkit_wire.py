"""gRPC over a pair of sockets: limits, errors, and clients that lie on their session."""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from grpclib.const import Cardinality, Status
from grpclib.const import Handler as Route
from grpclib.exceptions import GRPCError

from havre.api.buildkit import filesync
from havre.api.buildkit.control import Control
from havre.api.buildkit.filesync import DATA, ERR, FIN, STAT, receive
from havre.api.buildkit.http2 import MAX_MESSAGE, Channel, server_protocol, streaming, unary
from havre.api.buildkit.messages import (
    PingRequest,
    SolveRequest,
    Stat,
    StatusRequest,
    StatusResponse,
    Timestamp,
)
from havre.api.buildkit.protobuf import decode
from havre.api.buildkit.sessionauth import session_credentials
from havre.api.buildkit.sessionmessages import (
    BytesMessage,
    CredentialsRequest,
    CredentialsResponse,
    FetchTokenRequest,
    FetchTokenResponse,
    GetSecretRequest,
    GetSecretResponse,
    Packet,
)
from havre.api.buildkit.sessions import Session, Sessions
from havre.api.buildkit.sshagent import forward_agent
from havre.builds.packed import PackedTree
from havre.errors import Conflict, Failed, HavreError, InvalidInput, NotFound
from havre.registry import Auth, DelegatedAuth

SECRET, STATUS = "/moby.buildkit.secrets.v1.Secrets/GetSecret", "/moby.buildkit.v1.Control/Status"
AGENT = "/moby.sshforward.v1.SSH/ForwardAgent"
AUTH = "/moby.filesync.v1.Auth/"
DIRECTORY = 1 << 31


@asynccontextmanager
async def served(routes: dict[str, Route]) -> AsyncIterator[Session]:
    """A session whose client answers with `routes`."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    channel = Channel()
    client, _ = await loop.create_connection(lambda: server_protocol(routes), sock=theirs)
    await loop.create_connection(channel.make_protocol, sock=ours)
    try:
        yield Session("id", "key", [name.upper() for name in routes], channel)
    finally:
        channel.close()
        client.close()


def secrets(answer: Callable[[GetSecretRequest], bytes]) -> dict[str, Route]:
    async def handle(request: GetSecretRequest, metadata: Any) -> GetSecretResponse:
        return GetSecretResponse(answer(request))

    return {SECRET: unary(handle, GetSecretRequest, GetSecretResponse)}


def run(work: Awaitable[Any]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(10):
            return await work

    return asyncio.run(bounded())


def test_a_question_and_its_answers() -> None:
    def answer(request: GetSecretRequest) -> bytes:
        if request.id == "none":
            raise GRPCError(Status.NOT_FOUND, "no such secret")
        if request.id == "bad":
            raise InvalidInput("it is bad")
        return request.id.encode()

    async def ask() -> None:
        async with served(secrets(answer)) as session:
            assert session.offers(SECRET)
            assert not session.offers(STATUS)
            assert (await session.ask(SECRET, GetSecretRequest("s"), GetSecretResponse)).data == b"s"
            with pytest.raises(NotFound, match="no such secret"):
                await session.ask(SECRET, GetSecretRequest("none"), GetSecretResponse)
            with pytest.raises(Failed, match="it is bad"):
                await session.ask(SECRET, GetSecretRequest("bad"), GetSecretResponse)
        with pytest.raises(Failed, match="session has ended"):
            await session.ask(SECRET, GetSecretRequest("s"), GetSecretResponse)

    run(ask())


@pytest.mark.parametrize("side", ["question", "answer"])
def test_messages_are_bounded(side: str) -> None:
    async def ask() -> None:
        async with served(secrets(lambda request: bytes(MAX_MESSAGE) if request.id == "much" else b"")) as session:
            question = GetSecretRequest("x" * MAX_MESSAGE if side == "question" else "much")
            with pytest.raises(HavreError, match="larger than max"):
                await session.ask(SECRET, question, GetSecretResponse)
            assert (await session.ask(SECRET, GetSecretRequest("ok"), GetSecretResponse)).data == b""

    run(ask())


def test_what_is_no_message_is_refused() -> None:
    async def ask() -> None:
        async with served(secrets(lambda request: b"")) as session:
            with pytest.raises(HavreError, match="malformed GetSecretRequest"):
                await session.ask(SECRET, Timestamp(5), GetSecretResponse)

    run(ask())


def test_errors_in_the_middle_of_a_stream() -> None:
    told: list[StatusResponse] = []

    async def answers(request: StatusRequest, metadata: Any) -> AsyncIterator[StatusResponse]:
        yield StatusResponse()
        raise NotFound("no such job")

    async def read() -> None:
        routes = {STATUS: streaming(answers, StatusRequest, StatusResponse)}
        async with served(routes) as session, session.converse(STATUS, [], StatusRequest, StatusResponse) as stream:
            await stream.send_message(StatusRequest("r"), end=True)
            told.extend([message async for message in stream])

    with pytest.raises(Failed, match="no such job"):
        run(read())
    assert told == [StatusResponse()]


def test_a_session_may_come_after_its_build() -> None:
    async def meet() -> None:
        sessions = Sessions()
        looking = asyncio.ensure_future(sessions.find("late"))
        await asyncio.sleep(0)
        session = Session("late", "", [], Channel())
        async with sessions.opened(session):
            assert await looking is session
        with pytest.raises(InvalidInput):
            async with sessions.opened(Session("", "", [], Channel())):
                raise AssertionError

    run(meet())


# -- files


def files(*packets: Packet) -> dict[str, Route]:
    """A client that sends these packets, whatever it is asked for, and waits for the end."""

    async def handle(stream: Any) -> None:
        for packet in packets:
            await stream.send_message(packet)
        while (packet := await stream.recv_message()) is not None:
            if packet.type == FIN:
                await stream.send_message(Packet(type=FIN))

    return {filesync.METHOD: Route(handle, Cardinality.STREAM_STREAM, Packet, Packet)}


def take(routes: dict[str, Route], scratch: Path, follow: Sequence[str] = (), exclude: Sequence[str] = ()) -> None:
    """Receive the directory `context` of a client that answers so."""

    async def receive_it() -> None:
        async with served(routes) as session:
            with closing(PackedTree(scratch)) as tree:
                await receive(session, "context", tree, lambda size: None, follow=follow, exclude=exclude)

    run(receive_it())


@contextmanager
def limited_files(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size` bytes: a disk that refuses."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def listed(path: str, mode: int = 0o644, **fields: Any) -> Packet:
    return Packet(type=STAT, stat=Stat(path=path, mode=mode, **fields))


END = Packet(type=STAT)


@pytest.mark.parametrize(
    ("packets", "told"),
    [
        ([listed("../x")], "named"),
        ([listed("d", DIRECTORY | 0o755), listed("d/../../x")], "named"),
        ([listed("l", 1 << 27 | 0o777, linkname="/etc"), listed("l/passwd", size=1)], "before its directory"),
        ([listed("x", linkname="/etc/passwd")], "does not list"),
        ([listed("x", size=1), END, Packet(type=DATA, id=5, data=b"x")], "invalid file request 5"),
        ([listed("x", size=1), END, END], "has ended"),
        ([listed("x", 1 << 19)], "type that is not allowed"),
        ([Packet(type=ERR, data=b"disk on fire")], "disk on fire"),
        ([Packet(type=9)], "unexpected"),
    ],
    ids=[
        "up",
        "up from inside",
        "through a link",
        "hard link out",
        "unasked",
        "two ends",
        "odd kind",
        "error",
        "odd packet",
    ],
)
def test_files_that_are_refused(tmp_path: Path, packets: Sequence[Packet], told: str) -> None:
    with pytest.raises(HavreError, match=told):
        take(files(*packets, END), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_client_that_leaves_in_the_middle(tmp_path: Path) -> None:
    async def handle(stream: Any) -> None:
        await stream.send_message(listed("x", size=5))
        await stream.send_message(END)
        await stream.recv_message()

    with pytest.raises(Failed, match="too early"):
        take({filesync.METHOD: Route(handle, Cardinality.STREAM_STREAM, Packet, Packet)}, tmp_path)


def test_a_disk_that_refuses(tmp_path: Path) -> None:
    with limited_files(1 << 16), pytest.raises(Failed, match="failed to write the build context: File too large"):
        take(files(listed("x", size=1 << 20), END, Packet(type=DATA, data=bytes(1 << 20)), Packet(type=DATA)), tmp_path)


def test_names_beyond_ascii_are_escaped(tmp_path: Path) -> None:
    asked: dict[str, list[str]] = {}

    async def handle(stream: Any) -> None:
        asked.update({key: stream.metadata.getall(key) for key in stream.metadata})
        await stream.send_message(END)
        await stream.recv_message()
        await stream.send_message(Packet(type=FIN))

    route = Route(handle, Cardinality.STREAM_STREAM, Packet, Packet)
    take({filesync.METHOD: route}, tmp_path, follow=("a b", "é"), exclude=("plain", "b"))
    assert asked == {
        "dir-name": ["context"],
        "followpaths": ["a+b", "%C3%A9"],
        "followpaths-encoded": ["1"],
        "exclude-patterns": ["plain", "b"],
    }


# -- agents


def test_an_agent_answers_through_the_session(tmp_path: Path) -> None:
    async def handle(stream: Any) -> None:
        assert stream.metadata["buildkit.ssh.id"] == "default"
        async for message in stream:
            await stream.send_message(BytesMessage(message.data.upper()))

    async def talk() -> None:
        path = tmp_path / "agent"
        async with served({AGENT: Route(handle, Cardinality.STREAM_STREAM, BytesMessage, BytesMessage)}) as session:
            async with forward_agent(session, "", path):
                reader, writer = await asyncio.open_unix_connection(path)
                writer.write(b"sign this")
                assert await reader.readexactly(9) == b"SIGN THIS"
                idle, idle_writer = await asyncio.open_unix_connection(path)
                idle_writer.write(b"x")
                assert await idle.read(1) == b"X"
                writer.write_eof()
                assert await reader.read() == b""
                writer.close()
            assert await idle.read() == b""
            idle_writer.close()

    run(talk())


def test_credentials_and_tokens() -> None:
    async def credentials(asked: CredentialsRequest, metadata: Any) -> CredentialsResponse:
        return CredentialsResponse("u", "p") if asked.host == "registry-1.docker.io" else CredentialsResponse()

    async def token(asked: FetchTokenRequest, metadata: Any) -> FetchTokenResponse:
        return FetchTokenResponse(f"{asked.host} {asked.realm} {asked.service} {asked.scopes}", 60)

    routes = {f"{AUTH}Credentials": unary(credentials, CredentialsRequest, CredentialsResponse)}

    async def ask() -> None:
        async with served(routes) as session:
            found = await session_credentials(session, "docker.io")
            assert found == Auth(username="u", password="p", server_address="docker.io")
            assert await session_credentials(session, "r:5000") is None
        async with served(
            routes | {f"{AUTH}FetchToken": unary(token, FetchTokenRequest, FetchTokenResponse)}
        ) as session:
            delegated = await session_credentials(session, "r:5000")
            assert isinstance(delegated, DelegatedAuth)
            assert delegated.fetch is not None
            assert await delegated.fetch("http://r/t", "s", "a b") == ("r:5000 http://r/t s ['a', 'b']", 60)

    run(ask())


def test_a_ping_is_no_secret() -> None:
    async def ask() -> None:
        async with served(secrets(lambda request: b"")) as session:
            with pytest.raises(Failed):
                await session.ask("/no.such/Method", PingRequest(), GetSecretResponse)

    run(ask())


def test_nobody_waits_for_an_empty_graph() -> None:
    nobody: Any = None
    builder: Any = SimpleNamespace(history=None)
    request = decode(SolveRequest, b"\x0a\x01r\x12\x00\x58\x01")  # ref "r", a definition of no bytes, internal
    with pytest.raises(HavreError, match="low-level build definitions"):
        asyncio.run(Control(builder, nobody, nobody, nobody, nobody).solve(request, nobody))


def test_a_second_build_of_the_same_reference_leaves_the_first_what_it_has() -> None:
    async def work() -> None:
        nobody: Any = None
        builder: Any = SimpleNamespace(history=None)
        control, closed = Control(builder, nobody, nobody, nobody, nobody), list[str]()
        first = asyncio.ensure_future(control.solve(SolveRequest(ref="r", internal=True), nobody))
        await asyncio.sleep(0)
        with control._jobs.using("r") as job:
            job.resources.callback(closed.append, "files")
            with pytest.raises(Conflict, match="the build r exists already"):
                await control.solve(SolveRequest(ref="r"), nobody)
            assert closed == []
            job.finish("")
        await asyncio.wait_for(first, 10)
        assert closed == ["files"]

    asyncio.run(work())

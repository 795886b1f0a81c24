"""Files of a git repository or a URL, read as buildx reads them before it builds from there."""

from __future__ import annotations

import asyncio
import secrets
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from grpclib.exceptions import GRPCError

from havre.api.buildkit import messages as m
from havre.api.buildkit.protobuf import encode
from havre.oci.digest import digest_of
from support.building import served
from support.buildkit import BRIDGE, CONTROL, Caller, calling
from support.engines import Engine
from support.repository import Repository

pytestmark = pytest.mark.peer


class Reader:
    """A build that only reads sources."""

    def __init__(self, caller: Caller, build: str) -> None:
        self._caller = caller
        self._build = build
        self._ref = ""

    async def solve(self, *ops: m.Op) -> None:
        """Solve operations, each of which reads the one before it."""
        marshalled: list[bytes] = []
        for op in (*ops, m.Op()):
            op.inputs = [m.OpInput(digest_of(marshalled[-1]))] if marshalled else []
            marshalled.append(encode(op))
        request = m.BridgeSolveRequest(m.Definition(marshalled))
        answer = await self._caller.ask(f"{BRIDGE}Solve", request, m.BridgeSolveResponse, self._build)
        assert answer.result is not None
        assert answer.result.ref is not None
        self._ref = answer.result.ref.id

    async def stat(self, path: str) -> m.Stat:
        request = m.StatFileRequest(self._ref, path)
        found = (await self._caller.ask(f"{BRIDGE}StatFile", request, m.StatFileResponse, self._build)).stat
        assert found is not None
        return found

    async def read(self, path: str, offset: int = 0, length: int = 0) -> bytes:
        part = m.FileRange(offset, length) if offset or length else None
        request = m.ReadFileRequest(self._ref, path, part)
        return (await self._caller.ask(f"{BRIDGE}ReadFile", request, m.ReadFileResponse, self._build)).data


@asynccontextmanager
async def reading(engine: Engine) -> AsyncIterator[Reader]:
    async with asyncio.timeout(30), calling(engine.socket) as caller:
        build = secrets.token_hex(12)
        solving = asyncio.ensure_future(
            caller.ask(f"{CONTROL}Solve", m.SolveRequest(ref=build, internal=True), m.SolveResponse)
        )
        try:
            yield Reader(caller, build)
            await caller.ask(f"{BRIDGE}Return", m.ReturnRequest(m.Result()), m.ReturnResponse, build)
            await solving
        finally:
            solving.cancel()
            await asyncio.gather(solving, return_exceptions=True)


def git(url: str, fragment: str = "") -> m.Op:
    return m.Op(source=m.SourceOp(f"git://{url.partition('://')[2]}{fragment}", {"git.fullurl": url}))


@pytest.fixture
def repository(havred: Engine, tmp_path: Path) -> Iterator[Repository]:
    files = {"Dockerfile": "FROM scratch\n", "sub/name": "0123456789", "out": "-> /etc/passwd"}
    served_repository = Repository(tmp_path, files, havred.inside)
    yield served_repository
    served_repository.close()


def _borrowed(engine: Engine) -> list[Path]:
    return list((engine.root / "data" / "build" / "contexts").iterdir())


def test_a_repository(havred: Engine, repository: Repository) -> None:
    before = _borrowed(havred)

    async def look() -> None:
        async with reading(havred) as reader:
            await reader.solve(git(repository.url))
            with pytest.raises(GRPCError, match="no such file or directory"):
                await reader.stat("Dockerfile.rego")
            assert await reader.read("/Dockerfile") == b"FROM scratch\n"
            described = await reader.stat("sub/name")
            assert (described.size, described.mode) == (10, 0o644)
            assert (await reader.stat("sub")).mode & 1 << 31
            assert await reader.read("sub/name", 2, 3) == b"234"
            assert await reader.read("sub/name", 8, 9) == b"89"
            for path in ("sub", "out", "../../../../../etc/passwd"):
                with pytest.raises(GRPCError, match=r"no such file|is a directory"):
                    await reader.read(path)
            await reader.solve(git(repository.url, "#v1:sub"))
            assert await reader.read("name") == b"0123456789"
            await reader.solve(git(repository.url, "#nowhere"))
            with pytest.raises(GRPCError, match="couldn't find remote ref"):
                await reader.stat("name")

    asyncio.run(look())
    assert _borrowed(havred) == before


def test_a_url(havred: Engine, tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    (files / "Dockerfile").write_text("FROM scratch\n")
    shutil.make_archive(str(tmp_path / "served" / "context"), "tar", files)
    shutil.copy(files / "Dockerfile", tmp_path / "served")

    async def look(url: str) -> None:
        async with reading(havred) as reader:
            unpacked = m.Op(file=m.FileOp([m.FileAction(m.FileCopy("/context", "/", unpack=True))]))

            def named(file: str, **attrs: str) -> m.Op:
                told = {f"http.{name}": value for name, value in attrs.items()}
                return m.Op(source=m.SourceOp(f"{url}/{file}", {"http.filename": "context", **told}))

            await reader.solve(named("context.tar"), unpacked)
            assert await reader.read("Dockerfile") == b"FROM scratch\n"
            await reader.solve(named("Dockerfile"), unpacked)
            assert await reader.read("context") == b"FROM scratch\n"
            await reader.solve(named("context.tar"))
            assert (await reader.stat("context")).size == (tmp_path / "served" / "context.tar").stat().st_size
            await reader.solve(named("Dockerfile", checksum=digest_of(b"other")))
            with pytest.raises(GRPCError, match="digest mismatch"):
                await reader.stat("context")
            with pytest.raises(GRPCError, match="low-level build definitions are not supported"):
                await reader.solve(m.Op(source=m.SourceOp("docker-image://docker.io/library/busybox")))

    with served(havred, tmp_path / "served") as url:
        asyncio.run(look(url))


def test_what_a_build_made_cannot_be_read(havred: Engine) -> None:
    async def look() -> None:
        async with reading(havred) as reader:
            with pytest.raises(GRPCError, match="no such ref"):
                await reader.stat("x")

    asyncio.run(look())

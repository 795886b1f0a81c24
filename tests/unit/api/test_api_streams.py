"""Answers that come piece by piece: wait, events, logs, progress, exec, WebSockets; and who outlives the client."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from havre.containers.exits import Exits, WaitResult
from havre.containers.streams.exec import Exec, ExecSpec
from havre.errors import Failed, NotFound
from havre.images.progress import ProgressLine
from havre.logs import LogChunk
from havre.system.info import Usage
from unit.api.api_fakes import CONTAINER_ID, FakeAttachment, FakeContainers, Wire, exchange, post_json, services, start

Scenario = Callable[[Path, Any], Coroutine[Any, Any, None]]


class Containers(FakeContainers):
    """With an exit to wait for, a log and an exec."""

    def __init__(self) -> None:
        super().__init__()
        self.exits = Exits()
        self.lines: list[LogChunk] = []
        self.exec = Exec("e1", CONTAINER_ID, ExecSpec(attach_stdout=True), ["nonesuch", "x"])
        self.exec_failure: Failed | None = None
        self.begun, self.gate, self.finished = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def wait(self, ref: str, condition: str) -> Any:
        self.get(ref)
        return self.exits.wait(condition or "next-exit", None)

    async def logs(self, ref: str, options: Any) -> AsyncIterator[list[LogChunk]]:
        self.calls.append(("logs", options))
        yield self.lines

    async def start(self, ref: str, detach_keys: str | None = None) -> None:
        self.begun.set()
        await self.gate.wait()
        self.finished.set()


class Images:
    """Whose work says what it is told to say."""

    def __init__(self) -> None:
        self.script: list[ProgressLine | Exception | asyncio.Event] = []
        self.cancelled = asyncio.Event()
        self.asked: Any = None
        self.body = b""

    async def pull(self, name: str, tag: str = "", *, auth: Any, platform: Any, progress: Any, verify: str) -> None:
        assert verify == ""
        self.asked = (name, tag, auth, platform)
        await self._play(progress)

    async def load(self, chunks: AsyncIterator[bytes], progress: Any, platforms: Sequence[str]) -> None:
        async for chunk in chunks:
            self.body += chunk
        await self._play(progress)

    async def _play(self, progress: Any) -> None:
        try:
            for step in self.script:
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, asyncio.Event):
                    await step.wait()
                else:
                    progress(step)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Scenario], None]:
    """Run a scenario against an edge on a socket; no task may be left behind."""

    def go(scenario: Scenario) -> None:
        async def main() -> None:
            path, parts = tmp_path / "api.sock", services(containers=Containers(), images=Images())
            server = await start(path, parts)
            try:
                await scenario(path, parts)
            finally:
                await server.close()
            assert asyncio.all_tasks() == {asyncio.current_task()}

        asyncio.run(asyncio.wait_for(main(), 20))

    return go


async def ask(path: Path, target: str, method: str = "POST", headers: str = "") -> Wire:
    wire = Wire(path)
    await wire.send(f"{method} {target} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
    return wire


def dechunk(body: bytes) -> bytes:
    pieces = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        pieces, body = pieces + body[: int(size, 16)], body[int(size, 16) + 2 :]
    return pieces


def lines_of(answer: bytes) -> list[Any]:
    body = dechunk(answer.partition(b"\r\n\r\n")[2])
    assert body.endswith(b"\r\n")
    return [json.loads(line) for line in body.split(b"\r\n")[:-1]]


def test_wait_sends_its_head_before_the_end(run: Callable[[Scenario], None]) -> None:
    async def scenario(path: Path, parts: Any) -> None:
        wire = await ask(path, "/containers/golden/wait?condition=next-exit")
        assert (await wire.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
        parts.containers.exits.exited(WaitResult(3))
        assert b'{"StatusCode":3}\n' in await wire.until(b"}\n")
        wire.close()

    run(scenario)


def test_events_send_their_head_and_then_each_event(run: Callable[[Scenario], None]) -> None:
    async def scenario(path: Path, parts: Any) -> None:
        filters = '{"type":["container"]}'.replace('"', "%22")
        wire = await ask(path, f"/v1.51/events?filters={filters}", "GET")
        await wire.until(b"\r\n\r\n")
        parts.events.publish("network", "create", "n")
        parts.events.publish("container", "start", "c", {"image": "busybox"})
        event = json.loads((await wire.until(b"}\n")).split(b"\r\n")[1])
        assert (event["status"], event["id"], event["from"], event["Actor"]["ID"]) == ("start", "c", "busybox", "c")
        wire.close()
        answer = await exchange(path, "GET", "/events?since=1&until=2")
        assert answer.endswith(b"\r\n\r\n0\r\n\r\n")

    run(scenario)


def test_logs_are_framed_and_options_are_read(run: Callable[[Scenario], None]) -> None:
    async def scenario(path: Path, parts: Any) -> None:
        parts.containers.lines = [(1, b"out\n\nend\n"), (2, b"err\nor")]
        answer = await exchange(path, "GET", "/containers/golden/logs?stdout=1&stderr=1&tail=5&since=1.5&timestamps=1")
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b"Content-Type: application/vnd.docker.multiplexed-stream" in head
        assert dechunk(body) == (
            b"\x01\0\0\0\0\0\0\x04out\n\x01\0\0\0\0\0\0\x01\n\x01\0\0\0\0\0\0\x04end\n"
            b"\x02\0\0\0\0\0\0\x04err\n\x02\0\0\0\0\0\0\x02or"
        )
        ((_, options),) = parts.containers.calls
        assert (options.tail, options.since, options.until, options.timestamps) == (5, 1.5, None, True)
        answer = await exchange(path, "GET", "/containers/golden/logs?stdout=1&stderr=1&wide=1")
        assert dechunk(answer.partition(b"\r\n\r\n")[2]) == (
            b"\x01\0\0\0\0\0\0\x09out\n\nend\n\x02\0\0\0\0\0\0\x06err\nor"
        )

    run(scenario)


def test_pull_streams_progress_and_ends_with_its_error(run: Callable[[Scenario], None]) -> None:
    async def scenario(path: Path, parts: Any) -> None:
        wait = asyncio.Event()
        parts.images.script = [
            ProgressLine("Pulling from x", "latest", message=True),
            ProgressLine("Downloading", "abc", 5, 10),
            wait,
            Failed("cut off"),
        ]
        auth = base64.urlsafe_b64encode(b'{"username":"u","serveraddress":"s"}').decode().rstrip("=")
        wire = await ask(
            path, "/images/create?fromImage=x&tag=latest&platform=", headers=f"X-Registry-Auth: {auth}\r\n"
        )
        head = await wire.until(b'"id":"abc"}\r\n')
        assert head.startswith(b"HTTP/1.1 200 OK")
        assert b'{"status":"Pulling from x","id":"latest"}\r\n' in head
        wait.set()
        assert b'{"errorDetail":{"message":"cut off"},"error":"cut off"}\r\n' in await wire.until(b"0\r\n\r\n")
        name, tag, credentials, platform = parts.images.asked
        assert (name, tag, credentials.username, platform) == ("x", "latest", "u", None)
        wire.close()

    run(scenario)


def test_an_error_before_the_first_line_has_its_own_status(run: Callable[[Scenario], None]) -> None:
    async def scenario(path: Path, parts: Any) -> None:
        parts.images.script = [NotFound("no such thing")]
        answer = await exchange(path, "POST", "/images/create?fromImage=x")
        assert answer.startswith(b"HTTP/1.1 404")
        assert answer.endswith(b'{"message":"no such thing"}\n')

    run(scenario)


def test_load_reports_errors_in_the_stream_and_reads_chunks(run: Callable[[Scenario], None]) -> None:
    async def scenario(path: Path, parts: Any) -> None:
        parts.images.script = [ProgressLine(stream="Loaded image: a:1\n"), Failed("bad layer")]
        headers = "Transfer-Encoding: chunked\r\nContent-Type: application/x-tar\r\nExpect: 100-continue\r\n"
        answer = await exchange(path, "POST", "/images/load?quiet=1", headers, b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
        assert parts.images.body == b"abcde"
        assert lines_of(answer.partition(b"\r\n\r\n")[2]) == [
            {"stream": "Loaded image: a:1\n"},
            {"errorDetail": {"message": "bad layer"}, "error": "bad layer"},
        ]

    run(scenario)


def test_a_pull_stops_when_its_client_leaves(run: Callable[[Scenario], None]) -> None:
    async def scenario(path: Path, parts: Any) -> None:
        parts.images.script = [ProgressLine("Waiting", "abc"), asyncio.Event()]
        wire = await ask(path, "/images/create?fromImage=x")
        await wire.until(b"Waiting")
        wire.close()
        await parts.images.cancelled.wait()

    run(scenario)


def test_a_start_goes_on_when_its_client_leaves(run: Callable[[Scenario], None]) -> None:
    async def scenario(path: Path, parts: Any) -> None:
        wire = await ask(path, "/containers/golden/start")
        await parts.containers.begun.wait()
        wire.close()
        await exchange(path, "GET", "/_ping")
        parts.containers.gate.set()
        await parts.containers.finished.wait()

    run(scenario)


def test_starting_with_a_body_is_refused(run: Callable[[Scenario], None]) -> None:
    async def scenario(path: Path, parts: Any) -> None:
        answer = await post_json(path, "/containers/golden/start", b'{"Binds":["/:/host"]}')
        assert answer.startswith(b"HTTP/1.1 400")
        assert not parts.containers.begun.is_set()

    run(scenario)


def test_an_exec_that_cannot_start_says_so_in_its_stream(run: Callable[[Scenario], None]) -> None:
    async def scenario(path: Path, parts: Any) -> None:
        parts.containers.exec_failure = Failed("OCI runtime exec failed: executable file not found in $PATH")
        answer = await post_json(path, "/exec/e1/start", b"{}")
        text = b"OCI runtime exec failed: executable file not found in $PATH\r\n"
        assert answer == (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n"
            b"\x01\0\0\0\0\0\0" + bytes([len(text)]) + text
        )
        answer = await post_json(path, "/exec/nope/start", b"{}")
        assert answer.startswith(b"HTTP/1.1 404")

    run(scenario)


def test_an_exec_whose_client_left_is_let_go(run: Callable[[Scenario], None]) -> None:
    async def scenario(path: Path, parts: Any) -> None:
        containers = parts.containers

        async def slow_start(id: str, size: Any) -> FakeAttachment:
            containers.begun.set()
            await containers.gate.wait()
            return containers.attachment

        parts.execs.start = slow_start
        headers = "Content-Type: application/json\r\nContent-Length: 2\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
        wire = await ask(path, "/exec/e1/start", headers=headers)
        await wire.send(b"{}")
        await containers.begun.wait()
        wire.close()
        await exchange(path, "GET", "/_ping")
        containers.gate.set()
        await containers.attachment.closed.wait()

    run(scenario)


@pytest.mark.parametrize("error", [Failed("the disk is gone"), ValueError("a bug")])
def test_an_answer_that_has_begun_is_cut_off(run: Callable[[Scenario], None], error: Exception) -> None:
    async def scenario(path: Path, parts: Any) -> None:
        async def broken(ref: str, options: Any) -> AsyncIterator[list[LogChunk]]:
            yield [(1, b"out\n")]
            raise error

        parts.containers.logs = broken
        answer = await exchange(path, "GET", "/containers/golden/logs?stdout=1")
        assert answer.count(b"HTTP/1.1") == 1
        assert answer.endswith(b"out\n\r\n")  # and no last chunk: clients see that it is not the end

    run(scenario)


def test_a_bug_is_a_500_in_dockers_shape(run: Callable[[Scenario], None]) -> None:
    async def scenario(path: Path, parts: Any) -> None:
        def broken(ref: str) -> None:
            raise KeyError("oops")

        parts.containers.get = broken
        answer = await exchange(path, "GET", "/containers/golden/json")
        assert answer.startswith(b"HTTP/1.1 500")
        assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {"message": "internal error: KeyError: 'oops'"}

    run(scenario)


def test_exec_inspect(run: Callable[[Scenario], None]) -> None:
    async def scenario(path: Path, parts: Any) -> None:
        answer = json.loads((await exchange(path, "GET", "/exec/e1/json")).partition(b"\r\n\r\n")[2])
        golden = json.loads((Path(__file__).parents[2] / "golden/api/exec_created.json").read_text())
        process = {"tty": False, "entrypoint": "nonesuch", "arguments": ["x"], "privileged": False}
        assert answer == golden | {"ID": "e1", "ContainerID": CONTAINER_ID, "ProcessConfig": process}

    run(scenario)


def test_attach_by_websocket(run: Callable[[Scenario], None]) -> None:
    async def scenario(path: Path, parts: Any) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        headers = (
            f"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
        )
        wire = await ask(path, "/containers/golden/attach/ws?stream=1&stdin=1&stdout=1", "GET", headers)
        assert (await wire.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
        await wire.send(b"\x81\x82\0\0\0\0hi")  # a text frame, masked with zeros
        assert await wire.until(b"HI") == b"\x82\x02HI"
        wire.close()
        await parts.containers.attachment.closed.wait()

    run(scenario)


def test_disk_usage_shows_only_what_was_asked_for(tmp_path: Path) -> None:
    async def no_cache() -> list[Any]:
        return []

    async def disk_usage(_: object) -> Usage:
        return Usage(5, 0, [], [], [])

    async def main() -> None:
        server = await start(
            tmp_path / "s",
            services(system=SimpleNamespace(disk_usage=disk_usage), builder=SimpleNamespace(usage=no_cache)),
        )

        async def shown(target: str) -> Any:
            return json.loads((await exchange(tmp_path / "s", "GET", target)).partition(b"\r\n\r\n")[2])

        older = {"LayersSize": 0, "Images": None, "Containers": None, "Volumes": [], "BuildCache": None}
        assert await shown("/v1.51/system/df?type=volume") == older
        assert await shown("/system/df?type=volume") == {"VolumeUsage": {}, "Volumes": []}
        assert await shown("/system/df?type=volume&verbose=1") == {"VolumeUsage": {}}
        assert await shown("/v1.51/system/df?type=volume&verbose=1") == older
        assert (await exchange(tmp_path / "s", "GET", "/system/df?type=x")).startswith(b"HTTP/1.1 400")
        await server.close()

    asyncio.run(main())

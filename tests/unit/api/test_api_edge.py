"""What is on the wire: headers, versions, refusals. Texts and statuses are those of dockerd 26."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from havre.api.routes import build_router
from havre.api.server import UnixListener, serve
from havre.errors import Forbidden, NotFound
from havre.wire.images import ImageSummary
from unit.api.api_fakes import Wire, exchange, post_json, services, start

Scenario = Callable[[Path], Coroutine[Any, Any, None]]


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Scenario], None]:
    """Run a scenario against an edge on a socket; nothing of it may be left behind."""

    def go(scenario: Scenario) -> None:
        async def main() -> None:
            path = tmp_path / "api.sock"
            server = await start(path, services())
            try:
                await scenario(path)
            finally:
                await server.close()
            assert not path.exists()
            assert asyncio.all_tasks() == {asyncio.current_task()}

        asyncio.run(asyncio.wait_for(main(), 20))

    return go


def message(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    document = json.loads(body)
    assert set(document) == {"message"}
    assert b"Content-Type: application/json\r\n" in head + b"\r\n"
    return int(head.split()[1]), document["message"]


def test_head_ping(run: Callable[[Scenario], None]) -> None:
    async def scenario(path: Path) -> None:
        answer = await exchange(path, "HEAD", "/_ping")
        head, _, body = answer.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        assert lines[0] == b"HTTP/1.1 200 OK"
        for line in (
            b"Api-Version: 1.55",
            b"Ostype: linux",
            b"Docker-Experimental: false",
            b"Swarm: inactive",
            b"Cache-Control: no-cache, no-store, must-revalidate",
            b"Pragma: no-cache",
            b"Content-Length: 0",
            b"Content-Type: text/plain; charset=utf-8",
        ):
            assert line in lines
        assert any(line.startswith(b"Builder-Version: ") for line in lines)
        assert any(line.startswith(b"Server: Docker/") and line.endswith(b" (linux)") for line in lines)
        assert body == b""
        assert (await exchange(path, "GET", "/_ping")).endswith(b"\r\n\r\nOK")
        assert (await exchange(path, "GET", "/v1.30/_ping")).endswith(b"\r\n\r\nOK")

    run(scenario)


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        ("GET", "/nope", (404, "page not found")),
        ("PUT", "/_ping", (404, "page not found")),
        ("GET", "/containers/json/", (404, "page not found")),
        ("GET", "/v1.45/nope", (404, "page not found")),
        ("GET", "/vfoo/version", (404, "page not found")),
        ("GET", "/v1.99/version", (400, "client version 1.99 is too new. Maximum supported API version is 1.55")),
        (
            "GET",
            "/v1.12/version",
            (
                400,
                "client version 1.12 is too old. Minimum supported API version is 1.24, "
                "please upgrade your client to a newer version",
            ),
        ),
        ("GET", "/containers/none/json", (404, "No such container: none")),
        ("GET", "/v1.41/containers/none/json", (404, "No such container: none")),
        ("GET", "/containers/none/logs", (400, "Bad parameters: you must choose at least one stream")),
        ("GET", "/containers/none/logs?stdout=1", (404, "No such container: none")),
        ("GET", "/events?since=10&until=5", (400, "`since` time (10) cannot be after `until` time (5)")),
        ("GET", "/events?filters=x", (400, "invalid filter")),
        ("POST", "/session", (400, "no upgrade proto in request")),
        (
            "GET",
            "/nodes",
            (
                503,
                'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this '
                "node to swarm and try again.",
            ),
        ),
    ],
)
def test_refusals_word_for_word(
    run: Callable[[Scenario], None], method: str, target: str, expected: tuple[int, str]
) -> None:
    async def scenario(path: Path) -> None:
        assert message(await exchange(path, method, target)) == expected

    run(scenario)


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        (b"", "application/json", "invalid JSON: got EOF while reading request body"),
        (b"{", "application/json", "invalid JSON: unexpected EOF"),
        (b'{"Image":"none"} x', "application/json", "unexpected content after JSON"),
        (b"{}", "", "malformed Content-Type header (): mime: no media type"),
        (b"{}", "text/plain", "unsupported Content-Type header (text/plain): must be 'application/json'"),
        (
            b'{"HostConfig":{"Memory":"x"}}',
            "application/json",
            "invalid JSON: HostConfig.Memory: expected int, got str",
        ),
        (b'{"Image":1}', "application/json", "invalid JSON: Image: expected str, got int"),
        (b"[]", "application/json", "invalid JSON: expected object, got array"),
    ],
)
def test_bad_bodies(run: Callable[[Scenario], None], body: bytes, content_type: str, expected: str) -> None:
    async def scenario(path: Path) -> None:
        assert message(await post_json(path, "/v1.45/containers/create", body, content_type)) == (400, expected)

    run(scenario)


def test_double_slash_redirects_and_options_succeed(run: Callable[[Scenario], None]) -> None:
    async def scenario(path: Path) -> None:
        answer = await exchange(path, "GET", "/v1.45//version?a=b")
        assert answer.startswith(b"HTTP/1.1 301 Moved Permanently\r\n")
        assert b"\r\nLocation: /v1.45/version?a=b\r\n" in answer
        for target in ("/containers/json", "/nope"):
            answer = await exchange(path, "OPTIONS", target)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"Api-Version: 1.55\r\n" in answer

    run(scenario)


def test_garbage_is_answered_in_json(run: Callable[[Scenario], None]) -> None:
    async def scenario(path: Path) -> None:
        wire = Wire(path)
        await wire.send(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
        status, _ = message(await wire.to_end())
        wire.close()
        assert status == 400

    run(scenario)


def test_large_headers_pass(run: Callable[[Scenario], None]) -> None:
    async def scenario(path: Path) -> None:
        answer = await exchange(path, "GET", "/_ping?" + "x" * 40000, f"X-Registry-Auth: {'y' * 40000}\r\n")
        assert answer.startswith(b"HTTP/1.1 200 OK")

    run(scenario)


def test_pages_of_other_sites_are_refused(run: Callable[[Scenario], None]) -> None:
    async def scenario(path: Path) -> None:
        headers = "Origin: http://evil.example\r\nSec-Fetch-Site: cross-site\r\n"
        answer = await exchange(path, "POST", "/containers/golden/start", headers)
        assert message(answer) == (403, "requests from web pages of other sites are refused")

    run(scenario)


def test_images_that_go_while_they_are_listed(tmp_path: Path) -> None:
    class Going:
        def list(self, filters: Any, **options: bool) -> list[ImageSummary]:
            return [ImageSummary(id="here"), ImageSummary(id="gone")]

        async def show_manifests(self, shown: ImageSummary, *, identity: bool) -> None:
            if shown.id == "gone":
                raise NotFound("No such image: gone")
            shown.manifests = []

    async def main() -> None:
        server = await start(tmp_path / "api.sock", services(images=Going()))
        answer = await exchange(tmp_path / "api.sock", "GET", "/images/json?manifests=1")
        await server.close()
        assert [row["Id"] for row in json.loads(answer.partition(b"\r\n\r\n")[2])] == ["here"]

    asyncio.run(asyncio.wait_for(main(), 20))


def test_a_hint_travels_in_a_header(run: Callable[[Scenario], None]) -> None:
    async def scenario(path: Path) -> None:
        answer = await exchange(path, "GET", "/system/df?type=x%0d%0aEvil:%20y")
        assert b"\r\nHavre-Hint: expected one of container, image, volume, build-cache\r\n" in answer
        assert b"\r\nEvil:" not in answer

    run(scenario)


def test_no_route_escapes_the_guard(tmp_path: Path) -> None:
    asked: list[tuple[str, str]] = []

    async def guard(request: Any, method: str, path: str) -> None:
        asked.append((method, path))
        raise Forbidden("not for you")

    async def main() -> None:
        path, routes = tmp_path / "s", build_router().routes
        server = await serve(services(), [UnixListener(path)], guard=guard)
        for method, pattern in [*routes, ("GET", "/nope"), ("OPTIONS", "/_ping")]:
            target = pattern.replace("{name}", "x").replace("{checkpoint}", "y")
            for prefix in ("", "/v1.41"):
                answer = await exchange(path, method, prefix + target)
                assert answer.startswith(b"HTTP/1.1 403"), (method, target)
                assert asked.pop() == (method, target)
        await server.close()

    asyncio.run(asyncio.wait_for(main(), 30))


def test_no_route_is_hidden_by_another() -> None:
    router = build_router()
    for (method, pattern), handler in router.routes.items():
        found = router.find(method, pattern.replace("{name}", "x/y:1").replace("{checkpoint}", "z"))
        assert found is not None
        assert found[0] is handler, (method, pattern)


def test_keep_alive_serves_several_requests(run: Callable[[Scenario], None]) -> None:
    async def scenario(path: Path) -> None:
        wire = Wire(path)
        for _ in range(3):
            await wire.send(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await wire.until(b"\r\n\r\nOK")).startswith(b"HTTP/1.1 200")
        wire.close()

    run(scenario)

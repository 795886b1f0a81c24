"""Nothing passes the authorization plugins unseen, and nothing for want of a verdict."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from havre.api.authorization import Authorization
from havre.api.routes import build_router
from havre.api.server import UnixListener, serve
from havre.errors import Failed
from havre.plugins import Directories, Patience, Plugins
from support.authzplugin import ALLOWED, AuthzPlugin, body_of
from unit.api.api_fakes import Wire, exchange, post_json, services

_LIMIT = 4 << 20


class World:
    """An edge behind the plugin `guard`."""

    def __init__(self, root: Path, patience: Patience) -> None:
        self.path = root / "api.sock"
        self.parts = services()
        self.plugin = AuthzPlugin(root / "guard.sock")
        self.authorization = Authorization(Plugins(Directories((root,), (root,)), patience), ["guard"])

    def run(self, scenario: Callable[[Path], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            server = await serve(self.parts, [UnixListener(self.path)], authorization=self.authorization)
            try:
                await scenario(self.path)
            finally:
                await server.close()

        asyncio.run(asyncio.wait_for(main(), 30))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, Patience(connect_s=0.1))
    yield made
    made.plugin.close()


def status(answer: bytes) -> int:
    return int(answer.split()[1])


def message(answer: bytes) -> str:
    told: str = json.loads(answer.partition(b"\r\n\r\n")[2])["message"]
    return told


def test_every_route_is_asked_about(world: World) -> None:
    world.plugin.on_request = lambda asked: {"Allow": False, "Msg": "no"}

    async def scenario(path: Path) -> None:
        for method, pattern in build_router().routes:
            target = "/v1.41" + pattern.replace("{name}", "x").replace("{checkpoint}", "y")
            answer = await exchange(path, method, target)
            assert status(answer) == 403, target
            if method != "HEAD":
                assert message(answer) == "authorization denied by plugin guard: no"
            call, asked = world.plugin.asked.pop()
            assert (call, asked["RequestMethod"], asked["RequestUri"]) == ("AuthZPlugin.AuthZReq", method, target)

    world.run(scenario)


@pytest.mark.parametrize(
    "verdict",
    [
        *({}, {"Allow": False}, {"Allow": "true"}, {"Allow": 1}, {"Allow": None}, {"Allow": True, "Err": "broken"}),
        *([], b"", b"null", b"true", b"{", b"<html>", b'{"Allow": true} {"Allow": false}', b"\xff"),
    ],
)
def test_what_is_no_allowance_refuses(world: World, verdict: Any) -> None:
    async def scenario(path: Path) -> None:
        for who in ("on_request", "on_answer"):
            world.plugin.reset()
            setattr(world.plugin, who, lambda asked: verdict)
            assert status(await exchange(path, "POST", "/containers/golden/pause")) in (403, 500)
        world.plugin.reset()
        assert status(await exchange(path, "POST", "/containers/golden/pause")) == 204

    world.run(scenario)


def test_a_plugin_that_hangs_or_is_gone_refuses(tmp_path: Path) -> None:
    world = World(tmp_path, Patience(connect_s=0.1, answer_s=0.5))

    async def scenario(path: Path) -> None:
        free = asyncio.Event()
        loop = asyncio.get_running_loop()

        def hang(asked: Any) -> Any:
            asyncio.run_coroutine_threadsafe(free.wait(), loop).result(20)
            return ALLOWED

        world.plugin.on_request = hang
        answer = await exchange(path, "GET", "/version")
        assert (status(answer), message(answer)) == (
            500,
            "plugin guard failed with error: plugin guard does not answer AuthZPlugin.AuthZReq: no answer in time",
        )
        free.set()
        await asyncio.to_thread(world.plugin.close)
        assert status(await exchange(path, "GET", "/version")) == 500
        (path.parent / "guard.sock").unlink()
        answer = await exchange(path, "GET", "/version")
        assert message(answer) == 'plugin guard failed with error: plugin "guard" not found'
        world.authorization.use([])
        assert status(await exchange(path, "GET", "/_ping")) == 200

    world.run(scenario)


def test_cve_2024_41110_a_body_is_shown_however_it_is_framed(world: World) -> None:
    body = json.dumps({"Image": "none", "HostConfig": {"Privileged": True}}).encode()

    async def raw(path: Path, headers: str, sent: bytes) -> bytes:
        wire = Wire(path)
        head = f"POST /containers/create HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n"
        await wire.send(head.encode() + sent)
        answer = await wire.to_end()
        wire.close()
        return answer

    async def scenario(path: Path) -> None:
        chunked = b"".join(b"%x\r\n%s\r\n" % (1, body[at : at + 1]) for at in range(len(body))) + b"0\r\n\r\n"
        kind = "Content-Type: application/json; charset=utf-8\r\n"
        for headers, sent in (
            (f"{kind}Content-Length: {len(body)}\r\n", body),
            (f"{kind}Transfer-Encoding: chunked\r\n", chunked),
            ("content-type: APPLICATION/JSON ;x\r\nTransfer-Encoding: chunked\r\n", chunked),
        ):
            world.plugin.reset()
            assert status(await raw(path, headers, sent)) == 201
            assert body_of(world.plugin.of("AuthZReq", "/containers/create")) == body
        # What follows a body of no bytes is no part of it: here it is no request either.
        world.plugin.reset()
        assert status(await raw(path, f"{kind}Content-Length: 0\r\n", body)) == 400
        assert not any("RequestBody" in asked for _, asked in world.plugin.asked)
        # A type that is not read as JSON is refused by the handler, as the plugins have seen nothing.
        for kind in ("text/plain", "application/jsonx", ""):
            answer = await raw(path, f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n", body)
            assert status(answer) == 400

    world.run(scenario)


def test_cve_2026_34040_a_body_too_long_to_be_shown_is_refused(world: World) -> None:
    async def scenario(path: Path) -> None:
        whole = b'{"Image":"' + b"x" * (_LIMIT - 12) + b'"}'
        assert len(whole) == _LIMIT
        assert status(await post_json(path, "/containers/create", whole)) == 201
        assert len(body_of(world.plugin.of("AuthZReq", "/containers/create"))) == _LIMIT
        world.plugin.reset()
        answer = await post_json(path, "/containers/create", whole[:-1] + b" }")
        assert status(answer) == 403
        assert message(answer) == f"request body too large for authorization plugin: size exceeds {_LIMIT} bytes"
        assert world.plugin.asked == []

    world.run(scenario)


@pytest.mark.parametrize(
    ("body", "twice"),
    [
        # A plugin in Go reads the first as without binds, the second as with all capabilities dropped.
        ('{"Image":"x","HostConfig":{"Binds":["/:/host"],"binds":null}}', "HostConfig.Binds"),
        ('{"Image":"x","HostConfig":{"CapDrop":["ALL"]},"HostConfig":{}}', "'HostConfig'"),
        ('{"Image":"x","HostConfig":{"CapDrop":["ALL"]},"Host\\u0043onfig":{}}', "'HostConfig'"),
        ('{"Image":"x","HostConfig":{"Binds":["/:/host"],"Bindſ":null}}', "HostConfig.Binds"),
    ],
)
def test_a_body_that_plugins_may_read_otherwise_is_refused(world: World, body: str, twice: str) -> None:
    async def scenario(path: Path) -> None:
        answer = await post_json(path, "/containers/create", body.encode())
        assert (status(answer), twice in message(answer), "more than once" in message(answer)) == (400, True, True)
        labels = b'{"Image":"x","Labels":{"a":"1","A":"2"},"Env":null}'
        assert status(await post_json(path, "/containers/create", labels)) == 201

    world.run(scenario)


def test_headers_that_are_no_utf_8_are_shown(world: World) -> None:
    async def scenario(path: Path) -> None:
        wire = Wire(path)
        await wire.send(b"GET /_ping HTTP/1.1\r\nHost: x\r\nX-Odd: a\xffb\r\nConnection: close\r\n\r\n")
        assert status(await wire.to_end()) == 200
        wire.close()
        assert world.plugin.of("AuthZReq", "_ping")["RequestHeaders"]["X-Odd"] == "a\ufffdb"

    world.run(scenario)


def test_an_archive_that_is_shown_arrives(world: World) -> None:
    received = bytearray()

    class Files:
        async def write(self, ref: str, path: str, archive: Callable[[Any], Any], **_: Any) -> None:
            await archive(received.extend)

    world.parts = services(files=Files())

    async def scenario(path: Path) -> None:
        typed = "Content-Type: application/json\r\nContent-Length: 5\r\n"
        assert status(await exchange(path, "PUT", "/containers/golden/archive?path=/", typed, b"bytes")) == 200
        assert bytes(received) == body_of(world.plugin.of("AuthZReq", "archive")) == b"bytes"

    world.run(scenario)


def test_credentials_are_not_shown(world: World) -> None:
    async def scenario(path: Path) -> None:
        headers = (
            "X-Registry-Auth: secret\r\nx-registry-config: secret\r\nAuthorization: Basic secret\r\nx-other: 1\r\n"
        )
        await exchange(path, "GET", "/containers/golden/json", headers)
        shown = world.plugin.of("AuthZReq", "golden")["RequestHeaders"]
        assert shown["X-Other"] == "1"
        assert "secret" not in str(world.plugin.asked)

    world.run(scenario)


def test_an_answer_is_shown_before_it_is_sent(world: World) -> None:
    async def scenario(path: Path) -> None:
        await post_json(path, "/v1.41/containers/create", b'{"Image":"x"}')
        shown = world.plugin.of("AuthZRes", "create")
        assert shown["ResponseStatusCode"] == 201
        assert shown["ResponseHeaders"]["Content-Type"] == "application/json"
        assert json.loads(body_of(shown, "ResponseBody"))["Warnings"] == []
        await exchange(path, "GET", "/containers/none/json")
        assert world.plugin.of("AuthZRes", "none")["ResponseStatusCode"] == 404

        world.plugin.on_answer = lambda asked: {"Allow": False, "Msg": "keep it"}
        for method, target in (("GET", "/_ping"), ("POST", "/containers/golden/pause"), ("GET", "/events?until=1")):
            answer = await exchange(path, method, target)
            assert (status(answer), message(answer)) == (403, "authorization denied by plugin guard: keep it"), target
        answer = await exchange(path, "GET", "/containers/none/json")
        assert (status(answer), message(answer)) == (404, "No such container: none")
        taken = "Connection: Upgrade\r\nUpgrade: tcp\r\n"
        answer = await exchange(path, "POST", "/containers/golden/attach?stream=1&stdout=1", taken)
        assert (status(answer), message(answer)) == (403, "authorization denied by plugin guard: keep it")

    world.run(scenario)


def test_a_push_whose_answer_is_denied_ends(world: World) -> None:
    ended = asyncio.Event()

    class Images:
        async def push(self, *_: Any, **__: Any) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

    world.parts = services(images=Images())
    world.plugin.on_answer = lambda asked: {"Allow": False}

    async def scenario(path: Path) -> None:
        assert status(await exchange(path, "POST", "/images/box/push", "X-Registry-Auth: e30=\r\n")) == 403
        async with asyncio.timeout(10):
            await ended.wait()

    world.run(scenario)


def test_all_of_several_must_allow(world: World, tmp_path: Path) -> None:
    other = AuthzPlugin(tmp_path / "other.sock")
    world.authorization.use(["guard", "other", "guard"])
    try:

        async def scenario(path: Path) -> None:
            assert status(await exchange(path, "GET", "/_ping")) == 200
            assert [len(each.asked) for each in (world.plugin, other)] == [2, 2]
            other.on_request = lambda asked: {"Allow": False}
            answer = await exchange(path, "POST", "/containers/golden/pause")
            assert message(answer) == "authorization denied by plugin other: "

        world.run(scenario)
    finally:
        other.close()


def test_a_daemon_without_its_plugins_does_not_start(world: World) -> None:
    async def main() -> None:
        await world.authorization.check(["guard"])
        with pytest.raises(Failed, match='failed to validate authorization plugin: none: plugin "none" not found'):
            await world.authorization.check(["guard", "none"])

    asyncio.run(main())

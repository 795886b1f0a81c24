"""The registry client against servers that misbehave: what it sends to whom, what it accepts, when it tries again."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from havre.errors import Failed, HavreError, InvalidInput, NotFound, Unauthorized
from havre.oci import mediatypes
from havre.oci.digest import digest_of
from havre.oci.manifest import Descriptor
from havre.oci.reference import Reference, parse_reference
from havre.registry import Auth, DelegatedAuth, Registry, upload
from havre.registry.limits import Limits
from support.httpserver import Server, client, needs, play

USER = Auth(username="u", password="p")
BODY = bytes(range(256)) * 40
LAYER = Descriptor(mediatypes.OCI_LAYER_GZIP, digest_of(BODY), len(BODY))


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("transport", "client"):
        monkeypatch.setattr(f"havre.registry.{module}.backoff_s", lambda attempt: 0.0)


async def read(registry: Registry, ref: Reference, layer: Descriptor = LAYER, auth: Auth | None = None) -> bytes:
    return b"".join([chunk async for chunk in registry.blob(ref, layer, auth)])


async def whole(request: web.Request) -> web.StreamResponse:
    return web.Response(body=BODY)


def test_token_is_fetched_with_credentials_and_kept() -> None:
    async def work() -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            if request.path == "/token":
                assert request.query == {"service": "s", "scope": "repository:a/b:pull", "account": "u"}
                return web.json_response({"token": "T", "expires_in": 300})
            challenge = f'Bearer realm="http://{server.host}/token",service="s"'
            return await needs("Bearer T", whole, challenge)(request)

        async with Server.run(answer) as server, client() as registry:
            for _ in range(2):
                assert await read(registry, server.ref(), auth=USER) == BODY
            assert [path for _, path, _ in server.seen()].count("/token") == 1
            assert ("GET", "/token", "Basic dTpw") in server.seen()

    play(work)


def test_tokens_that_the_users_side_fetches() -> None:
    async def work() -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            if request.path == "/token":
                return web.json_response({"token": "anonymous"})
            return await needs("Bearer mine", whole, f'Bearer realm="http://{server.host}/token",service="s"')(request)

        asked: list[tuple[str, str, str]] = []

        async def fetch(realm: str, service: str, scope: str) -> tuple[str, float | None]:
            asked.append((realm, service, scope))
            if len(asked) > 1:
                raise Failed("no more")
            return "mine", 300.0

        async with Server.run(answer) as server, client() as registry:
            for _ in range(2):
                assert await read(registry, server.ref(), auth=DelegatedAuth(fetch=fetch)) == BODY
            assert asked == [(f"http://{server.host}/token", "s", "repository:a/b:pull")]
            with pytest.raises(HavreError):  # another's tokens are not his, and he has none to give
                await read(registry, server.ref(), auth=DelegatedAuth(fetch=lambda *each: fetch(*each)))
            assert ("GET", "/token", "") in [(method, path, told or "") for method, path, told in server.seen()]

    play(work)


def test_identity_token_is_exchanged() -> None:
    async def work() -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            if request.path == "/token":
                form = await request.post()
                assert (form["grant_type"], form["refresh_token"]) == ("refresh_token", "I")
                return web.json_response({"access_token": "T"})
            return await needs("Bearer T", whole, f'Bearer realm="http://{server.host}/token"')(request)

        async with Server.run(answer) as server, client() as registry:
            assert await read(registry, server.ref(), auth=Auth(identity_token="I")) == BODY

    play(work)


def test_cve_2024_3727_foreign_realm_gets_no_credentials() -> None:
    async def work() -> None:
        async def token(request: web.Request) -> web.StreamResponse:
            return web.json_response({"token": "T"})

        async def answer(request: web.Request) -> web.StreamResponse:
            return await needs("Bearer T", whole, f'Bearer realm="http://{evil.host}/token"')(request)

        async with Server.run(token) as evil, Server.run(answer) as server, client() as registry:
            assert await read(registry, server.ref(), auth=USER) == BODY
            assert evil.seen() == [("GET", "/token", None)]
            assert "account" not in evil.requests[0].query

    play(work)


def test_cve_2020_15157_redirect_drops_the_credentials() -> None:
    async def work() -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            raise web.HTTPTemporaryRedirect(f"http://{other.host}/elsewhere")

        guarded = needs("Basic dTpw", answer, 'Basic realm="x"')
        async with Server.run(whole, "127.0.0.2") as other, Server.run(guarded) as server, client() as registry:
            assert await read(registry, server.ref(), auth=USER) == BODY
            assert other.seen() == [("GET", "/elsewhere", None)]

    play(work)


def test_cve_2020_15157_foreign_layer_url_gets_no_credentials() -> None:
    async def work() -> None:
        async def missing(request: web.Request) -> web.StreamResponse:
            return web.Response(status=404)

        guarded = needs("Basic dTpw", missing, "Basic realm=x")
        async with Server.run(whole) as other, Server.run(guarded) as server, client() as registry:
            for url in (f"http://{other.host}/layer", "file:///etc/passwd"):
                layer = Descriptor(mediatypes.DOCKER_FOREIGN_LAYER, LAYER.digest, LAYER.size, urls=(url,))
                with pytest.raises(NotFound):
                    await read(registry, server.ref(), layer, USER)
            layer = Descriptor(
                mediatypes.DOCKER_FOREIGN_LAYER, LAYER.digest, LAYER.size, urls=(f"https://{other.host}/",)
            )
            with pytest.raises(Failed, match="Get"):
                await read(registry, server.ref(), layer, USER)
            assert other.requests == []

    play(work)


def test_redirect_loop_ends() -> None:
    async def work() -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            raise web.HTTPFound(str(request.url))

        async with Server.run(answer) as server, client() as registry:
            with pytest.raises(Failed, match="redirects"):
                await registry.manifest(server.ref())

    play(work)


def test_basic_without_credentials() -> None:
    async def work() -> None:
        async with Server.run(needs("Basic dTpw", whole, "Basic realm=x")) as server, client() as registry:
            with pytest.raises(Failed, match="no basic auth credentials"):
                await registry.manifest(server.ref())

    play(work)


def test_login_checks_the_password() -> None:
    async def work() -> None:
        async with Server.run(needs("Basic dTpw", whole, "Basic realm=x")) as server, client() as registry:
            server.open = False
            assert await registry.login(Auth("u", "p", server_address=server.host)) == ""
            with pytest.raises(Unauthorized) as error:
                await registry.login(Auth("u", "wrong", server_address=server.host))
            url = f"http://{server.host}/v2/"
            assert error.value.message == f"login attempt to {url} failed with status: 401 Unauthorized"

    play(work)


def test_download_resumes_where_it_broke() -> None:
    async def work() -> None:
        ranges: list[str | None] = []

        async def answer(request: web.Request) -> web.StreamResponse:
            ranges.append(request.headers.get("Range"))
            start = int(ranges[-1].removeprefix("bytes=").rstrip("-")) if ranges[-1] else 0
            response = web.StreamResponse(
                status=206 if start else 200, headers={"Content-Length": str(len(BODY) - start)}
            )
            await response.prepare(request)
            await response.write(BODY[start : start + 4000])
            if start + 4000 < len(BODY):
                assert request.transport is not None
                await asyncio.sleep(0.05)
                request.transport.close()
            return response

        async with Server.run(answer) as server, client() as registry:
            assert await read(registry, server.ref()) == BODY
            assert ranges == [None, "bytes=4000-", "bytes=8000-"]

    play(work)


def test_download_resumes_without_ranges() -> None:
    async def work() -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Length": str(len(BODY))})
            await response.prepare(request)
            if len(server.requests) == 1:
                await response.write(BODY[:5000])
                await asyncio.sleep(0.05)
                assert request.transport is not None
                request.transport.close()
            else:
                await response.write(BODY)
            return response

        async with Server.run(answer) as server, client() as registry:
            assert await read(registry, server.ref()) == BODY

    play(work)


def test_endless_blob_is_cut_off() -> None:
    async def work() -> None:
        async def endless(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            while True:
                await response.write(bytes(65536))

        async with Server.run(endless) as server, client() as registry:
            with pytest.raises(InvalidInput, match="longer than"):
                await read(registry, server.ref())
            with pytest.raises(InvalidInput, match="more than 4194304 bytes"):
                await registry.manifest(server.ref())

    play(work)


def test_short_blob_is_given_up() -> None:
    async def work() -> None:
        async def short(request: web.Request) -> web.StreamResponse:
            return web.Response(body=b"" if "Range" in request.headers else BODY[:100])

        async with Server.run(short) as server, client() as registry:
            with pytest.raises(Failed, match=f"ended after 100 of {len(BODY)} bytes|ended after 0"):
                await read(registry, server.ref())

    play(work)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_transient_failures_are_tried_again(status: int) -> None:
    async def work() -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            if len(server.requests) < 3:
                return web.Response(status=status, headers={"Retry-After": "0"})
            return await whole(request)

        async with Server.run(answer) as server, client() as registry:
            assert await read(registry, server.ref()) == BODY

    play(work)


def test_lasting_failure_is_told_after_a_few_attempts_or_at_once() -> None:
    async def work() -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            return web.Response(status=502)

        async with Server.run(answer) as server, client() as registry:
            with pytest.raises(Failed, match="received unexpected HTTP status: 502 Bad Gateway"):
                await registry.manifest(server.ref())
            assert len(server.requests) == Limits().attempts
            for ask in (
                lambda: registry.manifest(server.ref(), once=True),
                lambda: registry.document(server.ref(), LAYER, None, LAYER.size, once=True),
            ):
                server.requests.clear()
                with pytest.raises(Failed):
                    await ask()
                assert len(server.requests) == 1

    play(work)


def test_lying_manifest_is_refused() -> None:
    async def work() -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            return web.Response(body=b"{}", headers={"Docker-Content-Digest": digest_of(b"other")})

        async with Server.run(answer) as server, client() as registry:
            with pytest.raises(Failed, match="manifest verification failed"):
                await registry.manifest(server.ref())
            with pytest.raises(Failed, match="manifest verification failed"):
                await registry.manifest(server.ref("a/b").with_digest(digest_of(b"wanted")))

    play(work)


def test_errors_in_the_registrys_words() -> None:
    async def work() -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            errors = [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]
            return web.json_response({"errors": errors}, status=404)

        async with Server.run(answer) as server, client() as registry:
            with pytest.raises(NotFound) as error:
                await registry.manifest(server.ref())
            name = server.ref().familiar()
            assert error.value.message == f"manifest for {name} not found: manifest unknown: manifest unknown"

    play(work)


def test_mirror_comes_first_and_gets_no_credentials() -> None:
    async def work() -> None:
        body = b'{"schemaVersion":2}'

        async def answer(request: web.Request) -> web.StreamResponse:
            return web.Response(body=body)

        async with Server.run(answer) as mirror:
            async with client(mirrors=(f"http://{mirror.host}/cache",)) as registry:
                fetched = await registry.manifest(parse_reference("busybox:1"), USER)
            assert fetched.body == body
            assert mirror.seen() == [("GET", "/cache/v2/library/busybox/manifests/1", None)]

    play(work)


class Store:
    """A registry's upload endpoint; `fail_patches` requests of PATCH are cut after half of their body."""

    def __init__(self, fail_patches: int = 0) -> None:
        self.upload = bytearray()
        self.blobs: dict[str, bytes] = {}
        self.failures = fail_patches
        self.calls: list[str] = []

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.calls.append(f"{request.method} {request.path}")
        here = {"Location": "/v2/a/b/blobs/uploads/U?state=1"}
        if request.method == "POST":
            self.upload.clear()
            return web.Response(status=202, headers=here)
        if request.method == "GET":
            return web.Response(status=204, headers={**here, "Range": f"0-{len(self.upload) - 1}"})
        body = await request.content.read()
        if request.method == "PATCH":
            start = int(request.headers["Content-Range"].partition("-")[0])
            assert start == len(self.upload)
            if self.failures:
                self.failures -= 1
                self.upload += body[: len(body) // 2]
                assert request.transport is not None
                request.transport.close()
                return web.Response()
            self.upload += body
            return web.Response(status=202, headers=here)
        if request.method == "PUT":
            self.upload += body
            digest = "sha256:" + hashlib.sha256(self.upload).hexdigest()
            if digest != request.query["digest"]:
                return web.Response(status=400)
            self.blobs[digest] = bytes(self.upload)
            return web.Response(status=201)
        return web.Response(status=204 if request.method == "DELETE" else 404)


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 1 << 20):
        yield data[at : at + (1 << 20)]


@pytest.mark.parametrize("failures", [0, 2])
def test_upload_in_chunks_goes_on_after_a_break(failures: int) -> None:
    async def work() -> None:
        store, data = Store(failures), bytes(range(256)) * (70 << 10)
        async with Server.run(store) as server, client() as registry:
            digest, size = await registry.push_blob(server.ref(), pieces(data))
            assert (digest, size) == (digest_of(data), len(data))
            assert store.blobs[digest] == data
            assert sum(call.startswith("PATCH") for call in store.calls) == -(-len(data) // upload.CHUNK) + failures

    play(work)


def test_upload_that_fails_is_abandoned() -> None:
    async def work() -> None:
        async def broken() -> AsyncIterator[bytes]:
            yield bytes(100)
            raise Failed("the disk is gone")

        store = Store()
        async with Server.run(store) as server, client() as registry:
            with pytest.raises(Failed, match="the disk is gone"):
                await registry.push_blob(server.ref(), broken())
            assert store.calls[-1] == "DELETE /v2/a/b/blobs/uploads/U"
            assert store.blobs == {}

    play(work)


def test_document_is_uploaded_whole_unless_it_is_there() -> None:
    async def work() -> None:
        store = Store()
        async with Server.run(store) as server, client() as registry:
            digest = await registry.push_document(server.ref(), b"{}")
            assert store.blobs == {digest: b"{}"}
            assert [call.split()[0] for call in store.calls] == ["HEAD", "POST", "PUT"]

    play(work)


def test_listing_follows_pages_but_not_to_strangers() -> None:
    async def work() -> None:
        links = ['</v2/a/b/tags/list?n=2&last=b>; rel="next"', '<http://127.0.0.2:1/x>; rel="next"']

        async def answer(request: web.Request) -> web.StreamResponse:
            page, link = ("c", None) if "last" in request.query else ("a", links[0])
            return web.json_response({"tags": [page]}, headers={"Link": link} if link else {})

        async with Server.run(answer) as server, client() as registry:
            assert await registry.tags(server.ref("a/b")) == ["a", "c"]
            links[0] = links[1]
            with pytest.raises(Failed, match="another host"):
                await registry.tags(server.ref("a/b"))

    play(work)


def test_nobody_listens() -> None:
    async def work() -> None:
        async with client() as registry:
            with pytest.raises(Failed, match=r'Get "http://localhost:1/v2/": dial tcp .*: connect: connection refused'):
                await registry.manifest(parse_reference("localhost:1/x:1"))

    play(work)


@pytest.mark.parametrize("where", ["http://x:99999999/", "http://[::1", "ftp://x/", ""])
def test_malformed_places_are_refused_in_words(where: str) -> None:
    async def work() -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            if request.method == "POST":
                return web.Response(status=202, headers={"Location": where})
            if "tags" in request.path:
                return web.json_response({"tags": []}, headers={"Link": f'<{where}>; rel="next"'})
            if "blobs" in request.path:
                return web.Response(status=307, headers={"Location": where})
            return web.Response(status=401, headers={"WWW-Authenticate": f'Bearer realm="{where}"'})

        async with Server.run(answer) as server, client() as registry:
            for attempt in (
                registry.manifest(server.ref()),
                read(registry, server.ref()),
                registry.tags(server.ref()),
                registry.push_blob(server.ref(), pieces(b"x")),
            ):
                with pytest.raises(HavreError):
                    await attempt

    play(work)


def test_malformed_host_is_refused() -> None:
    async def work() -> None:
        async with client() as registry:
            with pytest.raises(InvalidInput, match="invalid URL"):
                await registry.manifest(parse_reference("localhost:99999999/x:1"))

    play(work)


@pytest.mark.parametrize(
    ("status", "body", "text"),
    [
        (401, '{"errors": [{"code": "UNAUTHORIZED", "message": "a message"}]}', "unauthorized: a message"),
        (401, '{"details": "incorrect username or password"}', "unauthorized: incorrect username or password"),
        (401, '{"error": "unauthorized"}', "unauthorized: authentication required"),
        (403, "no way", "unauthorized: authentication required"),
        (418, "no way", "token server .* answered with status 418"),
        (503, '{"errors": [{"code": "TOOMANYREQUESTS", "message": "no more"}]}', "^toomanyrequests: no more$"),
        (200, '{"something": "wrong"}', "authorization server did not include a token in the response"),
    ],
)
def test_refusals_of_tokens_are_in_the_servers_words(status: int, body: str, text: str) -> None:
    async def work() -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            if request.path == "/token":
                return web.Response(status=status, text=body)
            return web.Response(status=401, headers={"WWW-Authenticate": f'Bearer realm="http://{server.host}/token"'})

        async with Server.run(answer) as server, client() as registry:
            with pytest.raises((Failed, Unauthorized), match=text):
                await registry.manifest(server.ref())

    play(work)


def test_a_busy_token_server_is_asked_again() -> None:
    async def work() -> None:
        statuses = [503, 429, 200]

        async def answer(request: web.Request) -> web.StreamResponse:
            if request.path == "/token":
                return web.json_response({"token": "T"}, status=statuses.pop(0))
            return await needs("Bearer T", whole, f'Bearer realm="http://{server.host}/token"')(request)

        async with Server.run(answer) as server, client() as registry:
            assert await read(registry, server.ref()) == BODY
        assert statuses == []

    play(work)


def test_token_that_is_none() -> None:
    async def work() -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            if request.path == "/token":
                return web.Response(body=tokens.pop())
            return web.Response(status=401, headers={"WWW-Authenticate": f'Bearer realm="http://{server.host}/token"'})

        tokens = [b"{}", b'{"token": "a\\r\\nb"}', b"<html>"]
        async with Server.run(answer) as server, client() as registry:
            while tokens:
                with pytest.raises(Failed, match="token"):
                    await registry.manifest(server.ref())
            with pytest.raises(Failed, match="registry token"):
                await registry.manifest(server.ref(), Auth(registry_token="a\nb"))

    play(work)


def test_secrets_are_not_shown() -> None:
    assert "secret" not in repr(Auth("u", "secret", identity_token="secret"))

"""Searching registries, and the identity tokens that logins give."""

from __future__ import annotations

import pytest
from aiohttp import web

from havre.errors import Failed, InvalidInput, Unauthorized
from havre.registry import Auth, FoundRepository
from havre.registry.search import split_term
from support.httpserver import Server, client, needs, play


@pytest.mark.parametrize(
    ("term", "split"),
    [
        ("busybox", ("docker.io", "busybox")),
        ("library/busybox", ("docker.io", "busybox")),
        ("user/app", ("docker.io", "user/app")),
        ("docker.io/app", ("docker.io", "app")),
        ("host:5000/a/b", ("host:5000", "a/b")),
        ("localhost/", ("localhost", "")),
    ],
)
def test_terms(term: str, split: tuple[str, str]) -> None:
    assert split_term(term) == split


def test_a_url_is_no_term() -> None:
    with pytest.raises(InvalidInput, match="should not have a scheme"):
        split_term("https://host/x")


def test_an_index_is_asked() -> None:
    async def work() -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            assert (request.path, dict(request.query)) == ("/v1/search", {"q": "b x", "n": "2"})
            rows = [{"name": f"n{n}", "description": "d", "star_count": n, "is_official": n == 1} for n in range(3)]
            return web.json_response({"query": "b x", "results": rows})

        async with Server.run(answer) as server, client() as registry:
            found = await registry.search(f"{server.host}/b x", 2)
            assert found == [FoundRepository("n0", "d"), FoundRepository("n1", "d", 1, True)]

    play(work)


def test_a_registry_without_index_is_searched_by_its_catalogue() -> None:
    async def work() -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            if request.path == "/v2/_catalog":
                return web.json_response({"repositories": ["a/box", "box", "other", "xbox"]})
            return web.Response(status=404)

        async with Server.run(answer) as server, client() as registry:
            assert [one.name for one in await registry.search(f"{server.host}/box", 2)] == ["a/box", "box"]

    play(work)


@pytest.mark.parametrize("body", [b"<html>", b'{"results": 3}', b'{"results": [{"star_count": 1}]}'])
def test_an_index_that_answers_nonsense(body: bytes) -> None:
    async def work() -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            return web.Response(body=body)

        async with Server.run(answer) as server, client() as registry:
            with pytest.raises(Failed, match="invalid list of results"):
                await registry.search(f"{server.host}/x", 2)

    play(work)


def test_login_asks_for_an_identity_token_and_asks_anew() -> None:
    async def work() -> None:
        asked: list[dict[str, str]] = []

        async def answer(request: web.Request) -> web.StreamResponse:
            if request.path == "/token":
                asked.append(dict(request.query))
                if request.headers.get("Authorization") != "Basic dTpw":
                    return web.Response(status=401)
                return web.json_response({"token": "T", "refresh_token": "IDENTITY"})

            async def fine(request: web.Request) -> web.StreamResponse:
                return web.Response()

            return await needs("Bearer T", fine, f'Bearer realm="http://{server.host}/token",service="s"')(request)

        async with Server.run(answer) as server, client() as registry:
            server.open = False
            auth = Auth("u", "p", server_address=server.host)
            for _ in range(2):
                assert await registry.login(auth) == "IDENTITY"
            assert asked == [{"service": "s", "account": "u", "offline_token": "true", "client_id": "havre"}] * 2
            with pytest.raises(Unauthorized, match="incorrect username or password"):
                await registry.login(Auth("u", "wrong", server_address=server.host))

    play(work)

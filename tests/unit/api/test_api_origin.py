"""What a page of another site makes a browser send is refused, on every route."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from havre.api.origin import Kind, check_headers, own_names
from havre.api.routes import build_router
from havre.api.server import TcpListener, UnixListener, serve
from havre.errors import Forbidden
from unit.api.api_fakes import exchange, services

NAMES = own_names(["0.0.0.0", "Engine.example."], ["other.example"])


@pytest.mark.parametrize(
    ("kind", "headers"),
    [
        ("unix", {}),
        ("unix", {"Host": "api.moby.localhost"}),
        ("unix", {"Host": "anything"}),
        ("unix", {"Host": "localhost", "Origin": "http://localhost"}),
        ("unix", {"Host": "x", "Origin": "http://localhost"}),
        ("tcp", {}),
        ("tcp", {"Host": "127.0.0.1:2375"}),
        ("tcp", {"Host": "[::1]:2375"}),
        ("tcp", {"Host": "192.0.2.7"}),
        ("tcp", {"Host": "LOCALHOST:2375"}),
        ("tcp", {"Host": "api.moby.localhost"}),
        ("tcp", {"Host": "engine.example:2375"}),
        ("tcp", {"Host": "docker:2375"}),
        ("tcp", {"Host": "host.docker.internal:2375"}),
        ("tcp", {"Host": "other.example."}),
        ("tcp", {"Host": "127.0.0.1:2375", "Origin": "http://127.0.0.1:2375", "Sec-Fetch-Site": "same-origin"}),
        ("tcp", {"Host": "localhost", "Origin": "http://localhost:80", "Sec-Fetch-Site": "none"}),
        ("tls", {"Host": "any.example:2376", "Origin": "https://any.example:2376"}),
    ],
)
def test_clients_and_own_pages_are_served(kind: Kind, headers: dict[str, str]) -> None:
    check_headers(headers, kind, NAMES)


@pytest.mark.parametrize("kind", ["unix", "tcp", "tls"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "Cross-Site"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://localhost:3000"},
        {"Origin": "http://127.0.0.1"},
        {"Origin": "file://"},
        {"Origin": "chrome-extension://abc"},
    ],
)
def test_pages_of_others_are_refused(kind: Kind, headers: dict[str, str]) -> None:
    with pytest.raises(Forbidden, match="requests from web pages of other sites are refused"):
        check_headers({"Host": "127.0.0.1:2375", **headers}, kind, NAMES)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:2375", "127.0.0.1.evil.example", "localhost.evil", "[", "@"]
)
def test_names_that_point_here_without_being_ours_are_refused(host: str) -> None:
    with pytest.raises(Forbidden, match="is not a name of this daemon"):
        check_headers({"Host": host}, "tcp", NAMES)


def test_no_route_is_open_to_a_page_of_another_site(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "s"
        server = await serve(services(), [UnixListener(path)])
        for method, pattern in [*build_router().routes, ("GET", "/nope"), ("GET", "//"), ("OPTIONS", "/_ping")]:
            target = pattern.replace("{name}", "x").replace("{checkpoint}", "y")
            for headers in ("Sec-Fetch-Site: same-site\r\n", "Origin: http://evil.example\r\n"):
                answer = await exchange(path, method, target, headers)
                assert answer.startswith(b"HTTP/1.1 403"), (method, target)
        await server.close()

    asyncio.run(asyncio.wait_for(main(), 30))


def test_a_name_is_asked_for_over_tcp(tmp_path: Path) -> None:
    async def ask(port: int, host: str) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET /_ping HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        return answer

    async def main() -> None:
        server = await serve(services(), [TcpListener("127.0.0.1", 0)], allowed_hosts=["engine.example"])
        port = int(server.addresses[0].rpartition(":")[2])
        for host in (f"127.0.0.1:{port}", "localhost", "engine.example:1"):
            assert (await ask(port, host)).startswith(b"HTTP/1.1 200")
        refused = await ask(port, "evil.example")
        assert refused.startswith(b"HTTP/1.1 403")
        assert b"Havre-Hint: use one of the machine's addresses, or allow the name with --allowed-host\r\n" in refused
        for twice in ("evil.example\r\nHost: localhost", "localhost\r\nHost: evil.example"):
            assert (await ask(port, twice)).split()[1] == b"400"
        await server.close()

    asyncio.run(asyncio.wait_for(main(), 20))

"""Challenges, credentials and who may see them, endpoints: the pure part of the registry client."""

from __future__ import annotations

from pathlib import Path

import pytest
from yarl import URL

from havre.errors import InvalidInput
from havre.registry.auth import Auth, Challenge, TokenCache, may_send_credentials, parse_challenges
from havre.registry.endpoints import RegistryConfig, endpoints_for, host_of_address, is_loopback, tls_context


@pytest.mark.parametrize(
    ("header", "challenges"),
    [
        ("", []),
        ("Basic", [Challenge("basic", {})]),
        ('Basic realm="a, \\"b\\""', [Challenge("basic", {"realm": 'a, "b"'})]),
        (
            'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push"',
            [
                Challenge(
                    "bearer",
                    {
                        "realm": "https://auth.docker.io/token",
                        "service": "registry.docker.io",
                        "scope": "repository:a/b:pull,push",
                    },
                )
            ],
        ),
        ('Negotiate, BASIC realm=x , Bearer realm="y"', None),
    ],
)
def test_challenges(header: str, challenges: list[Challenge] | None) -> None:
    if challenges is None:
        assert [c.scheme for c in parse_challenges(header)] == ["negotiate", "basic", "bearer"]
    else:
        assert parse_challenges(header) == challenges


@pytest.mark.parametrize("header", ["=x", '"', "a" * 20000, "Bearer realm=\x00"])
def test_malformed_challenges(header: str) -> None:
    with pytest.raises(InvalidInput):
        parse_challenges(header)


@pytest.mark.parametrize(
    ("registry", "realm", "allowed"),
    [
        ("https://ghcr.io", "https://ghcr.io/token", True),
        ("https://registry-1.docker.io", "https://auth.docker.io/token", True),
        ("https://registry.gitlab.com", "https://gitlab.com/jwt/auth", True),
        ("https://gitlab.example.com:5050", "https://gitlab.example.com/jwt/auth", True),
        ("https://example.com", "https://auth.example.com/token", True),
        ("https://registry.example.com", "https://evil.com/token", False),
        ("https://registry.example.com", "https://notexample.com/token", False),
        ("https://registry.example.com", "https://example.com.evil.org/token", False),
        ("https://registry.com", "https://evil.com/", False),
        ("https://registry.co.uk", "https://evil.co.uk/", False),
        ("https://10.0.0.1", "https://10.0.0.2/", False),
        ("https://10.0.0.1", "https://evil.0.0.1/", False),
        ("https://registry.example.com", "http://registry.example.com/token", False),
        ("http://registry.example.com", "http://registry.example.com/token", True),
        ("http://localhost:5000", "http://localhost:5000/token", True),
        ("http://localhost:5000", "http://localhost:5001/token", False),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5001/token", False),
    ],
)
def test_cve_2020_15157_realm_that_may_see_credentials(registry: str, realm: str, allowed: bool) -> None:
    assert may_send_credentials(URL(registry), URL(realm)) is allowed


def test_basic_credentials() -> None:
    assert Auth(username="u", password="p").basic() == "Basic dTpw"
    assert Auth(auth="dTpw").basic() == "Basic dTpw"
    assert Auth(auth="x\r\ny").basic() is None
    assert Auth().is_empty


def test_tokens_are_kept_per_scope_and_user_and_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    cache, origin, user = TokenCache(), URL("https://a"), Auth(username="u")
    cache.put(origin, "s", user, "Bearer t", 300)
    assert cache.get(origin, "s", user) == "Bearer t"
    assert cache.get(origin, "s", None) is None
    assert cache.get(origin, "other", user) is None
    assert cache.get(URL("https://b"), "s", user) is None
    now[0] += 295
    assert cache.get(origin, "s", user) is None


def test_docker_hub_is_asked_through_its_mirrors() -> None:
    config = RegistryConfig(mirrors=("https://m.example/cache/", "other:5000"))
    first, second, hub = endpoints_for("docker.io", config)
    assert [str(first.bases[0]), str(second.bases[0]), str(hub.bases[0])] == [
        "https://m.example/cache",
        "https://other:5000",
        "https://registry-1.docker.io",
    ]
    assert (first.mirror, hub.mirror) == (True, False)
    assert len(endpoints_for("ghcr.io", config)) == 1


@pytest.mark.parametrize(
    ("host", "insecure"),
    [("localhost:5000", True), ("127.0.0.1", True), ("[::1]:5", True), ("10.1.2.3:5000", True), ("reg:5000", True),
     ("reg:5001", False), ("whole:7", True), ("example.com", False), ("11.1.2.3", False)],
)  # fmt: skip
def test_http_is_for_insecure_registries(host: str, insecure: bool) -> None:
    (endpoint,) = endpoints_for(host, RegistryConfig(insecure=("10.0.0.0/8", "reg:5000", "whole")))
    assert endpoint.insecure is insecure
    assert [base.scheme for base in endpoint.bases] == (["https", "http"] if insecure else ["https"])


@pytest.mark.parametrize("text", ["ftp://x", "http://", "https://u:p@x", "https://x?y=1"])
def test_bad_mirror(text: str) -> None:
    with pytest.raises(InvalidInput, match="invalid mirror"):
        endpoints_for("docker.io", RegistryConfig(mirrors=(text,)))


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("https://index.docker.io/v1/", "docker.io"),
        ("", "docker.io"),
        ("reg:5000", "reg:5000"),
        ("https://r.io/v2/", "r.io"),
    ],
)
def test_server_address(address: str, host: str) -> None:
    assert host_of_address(address) == host


def test_loopback() -> None:
    assert is_loopback("localhost")
    assert is_loopback("127.9.9.9")
    assert not is_loopback("localhost.evil.com")


def test_client_certificate_needs_its_key(tmp_path: Path) -> None:
    folder = tmp_path / "r.io"
    folder.mkdir()
    (folder / "client.cert").write_text("")
    with pytest.raises(InvalidInput, match=r"missing key client.key for client certificate client.cert"):
        tls_context("r.io", tmp_path, insecure=False)

"""Which requests of the engine go through which proxy."""

from __future__ import annotations

import pytest
from yarl import URL

from havre.registry.proxies import configured, proxy_for


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "proxy:3128")
    monkeypatch.setenv("HTTP_PROXY", "http://plain:1")


def test_by_scheme() -> None:
    assert proxy_for(URL("https://a.example/v2/")) == "http://proxy:3128"
    assert proxy_for(URL("http://a.example/v2/")) == "http://plain:1"


@pytest.mark.parametrize(
    ("exceptions", "near", "far"),
    [
        ("a.example", ["a.example", "b.a.example", "A.EXAMPLE"], ["xa.example"]),
        (".a.example", ["b.a.example"], ["a.example"]),
        ("*.a.example", ["b.a.example"], ["a.example"]),
        ("a.example:443", ["a.example"], ["a.example:5000"]),
        ("10.0.0.0/8, fd00::/8", ["10.1.2.3", "[fd00::1]"], ["11.0.0.1", "name.example"]),
        ("192.0.2.1", ["192.0.2.1"], ["192.0.2.10"]),
        ("*", ["whatever.example"], []),
        ("", ["localhost", "127.0.0.1:5000", "[::1]"], ["a.example"]),
    ],
)
def test_exceptions(monkeypatch: pytest.MonkeyPatch, exceptions: str, near: list[str], far: list[str]) -> None:
    monkeypatch.setenv("NO_PROXY", exceptions)
    assert [host for host in near if proxy_for(URL(f"https://{host}/"))] == []
    assert [host for host in far if not proxy_for(URL(f"https://{host}/"))] == []


def test_capitals_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://small:1")
    assert proxy_for(URL("https://a.example/")) == "http://proxy:3128"
    monkeypatch.setenv("https_proxy", "")
    assert proxy_for(URL("https://a.example/")) == "http://proxy:3128"
    monkeypatch.delenv("HTTPS_PROXY")
    assert proxy_for(URL("https://a.example/")) is None
    monkeypatch.setenv("https_proxy", "http://small:1")
    assert proxy_for(URL("https://a.example/")) == "http://small:1"


@pytest.mark.parametrize("scheme", ["", "http://"])
def test_passwords_are_not_told(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"{scheme}me:se@cret@proxy:3128")
    assert configured() == ("http://plain:1", f"{scheme}xxxxx:xxxxx@proxy:3128", "")

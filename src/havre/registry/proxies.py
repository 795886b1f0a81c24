"""The proxy of a request that the engine makes itself: HTTP_PROXY, HTTPS_PROXY and NO_PROXY, read as Go reads them.

    NO_PROXY=example.org,.example.net,10.0.0.0/8,192.0.2.1:5000     a name covers its subdomains; * is everything

Source: golang.org/x/net/http/httpproxy, which dockerd uses; loopback never goes through a proxy.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import urllib.request
from collections.abc import Iterator
from urllib.parse import urlsplit

from yarl import URL

from havre.registry.endpoints import is_loopback

log = logging.getLogger(__name__)


def proxy_for(url: URL) -> str | None:
    """The proxy that the environment names for `url`."""
    host = url.host or ""
    proxies = urllib.request.getproxies_environment()
    if is_loopback(host) or any(_covers(entry, host, url.port) for entry in _entries(proxies.get("no", ""))):
        return None
    proxy = proxies.get(url.scheme)
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy


def _entries(text: str) -> Iterator[str]:
    return (entry.strip().lower() for entry in text.split(",") if entry.strip())


def _covers(entry: str, host: str, port: int | None) -> bool:
    if entry == "*":
        return True
    if "/" in entry:
        try:
            return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    name, colon, only_port = entry.rpartition(":")
    if not colon or not only_port.isdecimal() or (":" in name and not name.endswith("]")):
        name, only_port = entry, ""
    if only_port and port != int(only_port):
        return False
    name = name.strip("[]").removeprefix("*")
    if name.startswith("."):
        return host.lower().endswith(name)
    return host.lower() == name or host.lower().endswith(f".{name}")


def override_environment(http_proxy: str, https_proxy: str, no_proxy: str) -> None:
    """Let the daemon's configuration win over its environment, for whatever it runs, too."""
    for name, value in (("HTTP_PROXY", http_proxy), ("HTTPS_PROXY", https_proxy), ("NO_PROXY", no_proxy)):
        for variable in (name, name.lower()) if value else ():
            if os.environ.get(variable, value) != value:
                log.warning("overriding existing proxy variable with value from configuration: %s", variable)
            os.environ[variable] = value


def configured() -> tuple[str, str, str]:
    """HTTP, HTTPS proxy and exceptions in force, passwords hidden, "" where there is none."""
    proxies = urllib.request.getproxies_environment()
    return _masked(proxies.get("http", "")), _masked(proxies.get("https", "")), proxies.get("no", "")


def _masked(text: str) -> str:
    try:
        parts = urlsplit(text)
    except ValueError:
        return text
    if "@" not in parts.netloc:
        return text
    return parts._replace(netloc=f"xxxxx:xxxxx@{parts.netloc.rpartition('@')[2]}").geturl()

"""The proxy of a request that the engine makes itself: HTTP_PROXY, HTTPS_PROXY and NO_PROXY, read as Go reads them.

    NO_PROXY=example.org,.example.net,10.0.0.0/8,192.0.2.1:5000     a name covers its subdomains; * is everything

Source: golang.org/x/net/http/httpproxy, which dockerd uses; loopback never goes through a proxy.
"""

from __future__ import annotations

import ipaddress
import logging
import os
from collections.abc import Iterator

from yarl import URL

from havre.registry.endpoints import is_loopback

log = logging.getLogger(__name__)


def proxy_for(url: URL) -> str | None:
    """The proxy that the environment names for `url`."""
    host = url.host or ""
    if is_loopback(host) or any(_covers(entry, host, url.port) for entry in _entries(_variable("NO_PROXY"))):
        return None
    proxy = _variable(f"{url.scheme}_proxy".upper())
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy or None


def _variable(name: str) -> str:
    """A variable in capitals, else in small letters, as Go's order is."""
    return os.environ.get(name) or os.environ.get(name.lower(), "")


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
    return _masked(_variable("HTTP_PROXY")), _masked(_variable("HTTPS_PROXY")), _variable("NO_PROXY")


def _masked(text: str) -> str:
    scheme, separator, rest = text.rpartition("://")  # a proxy may be given without a scheme
    _, at, host = rest.rpartition("@")
    return f"{scheme}{separator}xxxxx:xxxxx@{host}" if at else text

"""The proxy of the engine's own requests: HTTP_PROXY, HTTPS_PROXY and NO_PROXY, read as Go does.

    NO_PROXY=example.org,.example.net,10.0.0.0/8,192.0.2.1:5000     a name includes its subdomains; * is everything

Source: golang.org/x/net/http/httpproxy, which dockerd uses; loopback is never proxied.
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
    """The proxy for `url` from the environment, or None."""
    host = url.host or ""
    if is_loopback(host) or any(_covers(entry, host, url.port) for entry in _entries(_variable("NO_PROXY"))):
        return None
    proxy = _variable(f"{url.scheme}_proxy".upper())
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy or None


def _variable(name: str) -> str:
    """The variable in upper case, else in lower case, in Go's order."""
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
    """Override the environment by the daemon's configuration, for child processes, too."""
    for name, value in (("HTTP_PROXY", http_proxy), ("HTTPS_PROXY", https_proxy), ("NO_PROXY", no_proxy)):
        for variable in (name, name.lower()) if value else ():
            if os.environ.get(variable, value) != value:
                log.warning("overriding existing proxy variable with value from configuration: %s", variable)
            os.environ[variable] = value


def configured() -> tuple[str, str, str]:
    """HTTP and HTTPS proxy and exceptions in force, passwords masked, "" for none."""
    return _masked(_variable("HTTP_PROXY")), _masked(_variable("HTTPS_PROXY")), _variable("NO_PROXY")


def _masked(text: str) -> str:
    scheme, separator, rest = text.rpartition("://")  # a proxy may be given without a scheme
    _, at, host = rest.rpartition("@")
    return f"{scheme}{separator}xxxxx:xxxxx@{host}" if at else text

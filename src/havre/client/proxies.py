"""The proxies of `config.json`, as environment variables of containers and builds.

    "proxies": {"default": {"httpProxy": "http://proxy:3128", "noProxy": "*.example.org"}, "tcp://host:2376": {...}}

The entry of the daemon's address overrides `default`. Source: docker's documentation, "Use a proxy server with the
Docker CLI".
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

_VARIABLES = {
    "httpProxy": "HTTP_PROXY",
    "httpsProxy": "HTTPS_PROXY",
    "ftpProxy": "FTP_PROXY",
    "noProxy": "NO_PROXY",
    "allProxy": "ALL_PROXY",
}


def proxy_variables(config: dict[str, Any], host: str) -> dict[str, str]:
    """The variables, in upper and lower case, that `config` sets for the daemon at `host`."""
    proxies = config.get("proxies")
    if not isinstance(proxies, dict):
        return {}
    chosen = proxies.get(host) or proxies.get("default") or {}
    if not isinstance(chosen, dict):
        return {}
    values = {name: chosen[key] for key, name in _VARIABLES.items() if chosen.get(key)}
    return {spelling: value for name, value in values.items() for spelling in (name, name.lower())}


def add_proxies(environment: Iterable[str], proxies: dict[str, str]) -> list[str]:
    """`NAME=VALUE` texts, plus those of `proxies` whose name is not among them; a bare name counts as set."""
    said = list(environment)
    names = {text.partition("=")[0] for text in said}
    return said + [f"{name}={value}" for name, value in proxies.items() if name not in names]

"""Checks of directives' values beyond their types; messages name the key of `daemon.json`. Pure.

dockerd also refuses to start with such values, so that a mistake is found at the start and not at the first pull.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

from havre.daemon.config import DaemonConfig
from havre.errors import InvalidInput
from havre.logs import check_driver
from havre.wire.versions import NEWEST, OLDEST, Version

_PROBLEM = "unable to configure the daemon"
_HOST = re.compile(r"[A-Za-z0-9._-]+(:\d{1,5})?|\[[0-9A-Fa-f:]+\](:\d{1,5})?|[0-9A-Fa-f:]+")
_LOWEST_MTU = 68


def check_values(config: DaemonConfig) -> None:
    """Refuse unusable values. InvalidInput."""
    _check_logging(config)
    _check_namespaces(config)
    for address in config.dns:
        _check_address(address)
    for mirror in config.registry_mirrors:
        _check_mirror(mirror)
    for registry in config.insecure_registries:
        _check_registry(registry)
    for label in config.labels:
        if not label.partition("=")[0] or "=" not in label:
            raise InvalidInput(f"{_PROBLEM}: labels: bad attribute format: {label}", "expected NAME=VALUE")
    if config.shutdown_timeout < -1:
        raise InvalidInput(f"{_PROBLEM}: shutdown-timeout: {config.shutdown_timeout} is too low", "-1 is no limit")
    for key, number in (
        ("concurrent downloads", config.max_concurrent_downloads),
        ("concurrent uploads", config.max_concurrent_uploads),
        ("download attempts", config.max_download_attempts),
    ):
        if number < 0:
            raise InvalidInput(f"{_PROBLEM}: invalid max {key}: {number}", "0 is the default")
    if config.default_stop_timeout < 0:
        raise InvalidInput(
            f"{_PROBLEM}: invalid default stop timeout: {config.default_stop_timeout}", "0 kills at once"
        )
    if config.min_api_version:
        parse_oldest(config.min_api_version, "min-api-version")
    _check_gateways(config.host_gateway_ips)
    if config.mtu != 0 and config.mtu < _LOWEST_MTU:
        raise InvalidInput(f"{_PROBLEM}: mtu: {config.mtu} is too low", f"at least {_LOWEST_MTU}")


def _check_namespaces(config: DaemonConfig) -> None:
    """The messages are dockerd's."""
    mode, hint = config.default_ipc_mode, 'use "shareable" or "private"'
    if mode in ("none", "host") or mode.startswith("container:"):
        raise InvalidInput(f'{_PROBLEM}: IPC mode "{mode}" is not supported as default value; {hint}')
    if mode not in ("", "shareable", "private"):
        raise InvalidInput(f"{_PROBLEM}: default IPC mode setting ({mode}) is invalid; {hint}")
    mode = config.default_cgroupns_mode
    if mode not in ("", "host", "private"):
        raise InvalidInput(f'{_PROBLEM}: default cgroup namespace mode ({mode}) is invalid; use "host" or "private"')


def _check_logging(config: DaemonConfig) -> None:
    try:
        check_driver(config.log_driver, config.log_opts)
    except InvalidInput as error:
        known = "unknown log opt" not in error.message and "plugin" in error.message
        key = "log-driver" if known else "log-opts"
        raise InvalidInput(f"{_PROBLEM}: {key}: {error.message}", error.hint) from None


def parse_oldest(text: str, source: str) -> Version:
    """The oldest API version to speak, given as `min-api-version` or by the environment. InvalidInput in dockerd's
    words."""
    problem = f"{_PROBLEM}: invalid {source}: "
    if text[:1] in ("v", "V"):
        raise InvalidInput(f'{problem}API version must be provided without "v" prefix', f"such as {OLDEST}")
    parts = text.split(".")
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() and len(part) < 5 for part in parts):
        raise InvalidInput(f"{problem}{text} is not an API version", f"such as {OLDEST}")
    version = Version(int(parts[0]), int(parts[1]))
    if version < OLDEST:
        raise InvalidInput(f"{problem}minimum supported API version is {OLDEST}: {text}")
    if version > NEWEST:
        raise InvalidInput(f"{problem}maximum supported API version is {NEWEST}: {text}")
    return version


def _check_gateways(addresses: Sequence[str]) -> None:
    """The messages are dockerd's."""
    problem, seen = f"{_PROBLEM}: host-gateway-ips: ", set()
    for text in addresses:
        try:
            version = ip_address(text).version
        except ValueError:
            raise InvalidInput(f"{problem}{text} is not an ip address") from None
        if version in seen:
            raise InvalidInput(f"{problem}only one IPv{version} host gateway IP address can be specified")
        seen.add(version)


def _check_address(text: str) -> None:
    try:
        ip_address(text)
    except ValueError:
        raise InvalidInput(f"{_PROBLEM}: dns: {text} is not an ip address") from None


def _check_mirror(text: str) -> None:
    hint = "expected as in https://mirror.example.com"
    url = urlsplit(text)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise InvalidInput(f'{_PROBLEM}: registry-mirrors: invalid mirror: "{text}" is not a valid URI', hint)
    if url.query or url.fragment or url.username is not None:
        raise InvalidInput(f'{_PROBLEM}: registry-mirrors: invalid mirror: "{text}": no query, fragment or user', hint)


def _check_registry(text: str) -> None:
    try:
        ip_network(text, strict=False)
    except ValueError:
        if "://" in text or not _HOST.fullmatch(text):
            raise InvalidInput(
                f"{_PROBLEM}: insecure-registries: insecure registry {text} is not valid",
                "expected HOST, HOST:PORT or a network such as 10.0.0.0/8",
            ) from None

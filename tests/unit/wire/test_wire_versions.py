"""Older clients: requests lifted, answers lowered."""

from __future__ import annotations

from typing import Any

import pytest

from havre.errors import InvalidInput
from havre.wire.config import CreateRequest, Healthcheck, HostConfig
from havre.wire.versions import NEWEST, OLDEST, Version, lift, lower, multiplexed, needs_lowering, parse_version


def test_range() -> None:
    assert parse_version("1.24") == OLDEST
    assert parse_version("1.45") == NEWEST
    assert parse_version("1.044") == Version(1, 44)  # as dockerd reads it
    assert Version(1, 9) < OLDEST
    for text in ("1.23", "1.9", "1", "0.5"):
        with pytest.raises(InvalidInput, match="too old"):
            parse_version(text)
    for text in ("1.46", "2.0", "1.100"):
        with pytest.raises(InvalidInput, match="too new"):
            parse_version(text)
    for text in ("", ".", "1.x", "99999.1"):
        with pytest.raises(InvalidInput):
            parse_version(text)


def test_create_is_lifted() -> None:
    def fresh() -> CreateRequest:
        return CreateRequest(host_config=HostConfig(), healthcheck=Healthcheck(start_interval=5))

    new = lift("ContainerCreate", fresh(), NEWEST)
    assert (new.host_config.ipc_mode, new.host_config.cgroupns_mode, new.healthcheck.start_interval) == ("", "", 5)
    old = lift("ContainerCreate", fresh(), Version(1, 39))
    assert old.host_config.ipc_mode == "shareable"
    assert old.host_config.cgroupns_mode == "host"
    assert old.healthcheck.start_interval == 0


def test_images_are_lowered() -> None:
    image: dict[str, Any] = {"Id": "x", "Size": 7, "RepoTags": [], "RepoDigests": []}
    assert not needs_lowering("ImageList", NEWEST)
    assert "VirtualSize" not in lower("ImageList", [dict(image)], Version(1, 44))[0]
    assert lower("ImageList", [dict(image)], Version(1, 43))[0]["VirtualSize"] == 7
    assert lower("ImageList", [dict(image)], Version(1, 42))[0]["RepoDigests"] is None
    assert "ContainerConfig" in lower("ImageInspect", dict(image), Version(1, 44))
    assert "ContainerConfig" not in lower("ImageInspect", dict(image), NEWEST)


def test_security_options_are_lowered() -> None:
    info = {"SecurityOptions": ["name=seccomp,profile=builtin", "name=cgroupns"]}
    assert lower("SystemInfo", info, OLDEST)["SecurityOptions"] == ["seccomp", "cgroupns"]


def test_aliases_are_lowered() -> None:
    answer = {
        "Id": "ab" * 32,
        "Config": {"Hostname": "h"},
        "NetworkSettings": {"Networks": {"bridge": {"Aliases": None}, "net": {"Aliases": ["web"]}}},
    }
    networks = lower("ContainerInspect", answer, Version(1, 44))["NetworkSettings"]["Networks"]
    assert networks == {"bridge": {"Aliases": None}, "net": {"Aliases": ["web", "abababababab", "h"]}}


def test_multiplexed() -> None:
    assert multiplexed(Version(1, 42), tty=False)
    assert not multiplexed(Version(1, 41), tty=False)
    assert not multiplexed(NEWEST, tty=True)

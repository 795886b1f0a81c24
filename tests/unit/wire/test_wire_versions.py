"""Older clients: requests lifted, answers lowered."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from msgspec import UNSET

from havre.errors import InvalidInput
from havre.wire.config import Config, CreateRequest, EndpointSettings, Healthcheck, HostConfig, UpdateRequest
from havre.wire.containers import ContainerDetails
from havre.wire.conversion import lift, lower
from havre.wire.images import ImageDetails, ImageSummary
from havre.wire.system import DiskUsage, Info, KindUsage, VersionAnswer
from havre.wire.versions import NEWEST, OLDEST, Version, multiplexed, parse_version


def test_range() -> None:
    assert parse_version("1.24") == OLDEST
    assert parse_version("1.55") == NEWEST
    assert parse_version("1.044") == Version(1, 44)  # as dockerd reads it
    assert Version(1, 9) < OLDEST
    for text in ("1.23", "1.9", "1", "0.5"):
        with pytest.raises(InvalidInput, match="too old"):
            parse_version(text)
    for text in ("1.56", "2.0", "1.100"):
        with pytest.raises(InvalidInput, match="too new"):
            parse_version(text)
    for text in ("", ".", "1.x", "99999.1"):
        with pytest.raises(InvalidInput):
            parse_version(text)


def test_create_is_lifted() -> None:
    def lifted(version: Version) -> tuple[str, str, int]:
        request = CreateRequest(host_config=HostConfig(), healthcheck=Healthcheck(start_interval=5))
        host, check = lift(request, version).host_config, request.healthcheck
        assert host is not None
        assert check is not None
        return host.ipc_mode, host.cgroupns_mode, check.start_interval

    assert lifted(NEWEST) == ("", "", 5)
    assert lifted(Version(1, 39)) == ("shareable", "host", 0)


def test_an_update_is_lifted() -> None:
    assert lift(UpdateRequest(pids_limit=5), Version(1, 40)).pids_limit == 5
    assert lift(UpdateRequest(pids_limit=5), Version(1, 39)).pids_limit is None


def test_images_are_lowered() -> None:
    def lowered(version: Version) -> ImageSummary:
        (row,) = lower([ImageSummary(id="x", size=7)], version)
        return row

    assert lowered(NEWEST).virtual_size is lowered(Version(1, 44)).virtual_size is UNSET
    assert lowered(Version(1, 43)).virtual_size == 7
    assert lowered(Version(1, 43)).repo_digests == []
    assert lowered(Version(1, 42)).repo_digests is None


def test_details_of_images_are_lowered() -> None:
    def lowered(version: Version) -> ImageDetails:
        golden = (Path(__file__).parents[2] / "golden" / "api" / "image.json").read_bytes()
        details = msgspec.json.decode(golden, type=ImageDetails)
        details.created = UNSET
        return lower(details, version)

    assert lowered(NEWEST).container_config is lowered(Version(1, 44)).created is UNSET
    assert isinstance(lowered(Version(1, 44)).container_config, Config)
    assert lowered(Version(1, 43)).created == "0001-01-01T00:00:00Z"


def test_info_is_lowered() -> None:
    golden = json.loads((Path(__file__).parents[2] / "golden" / "api" / "info.json").read_bytes())
    options = ["name=seccomp,profile=builtin", "name=cgroupns"]
    plain = golden | {"SecurityOptions": options, "Runtimes": {"x": {"path": "/x", "status": {"a": "b"}}}}

    def lowered(version: Version) -> Info:
        return lower(msgspec.convert(plain, Info), version)

    assert lowered(Version(1, 25)).security_options == options
    assert lowered(OLDEST).security_options == ["seccomp", "cgroupns"]
    assert lowered(Version(1, 44)).runtimes["x"].status == {"a": "b"}
    assert lowered(Version(1, 43)).runtimes["x"].status is UNSET


def test_disk_usage_is_lowered() -> None:
    def lowered(version: Version) -> DiskUsage:
        images = [ImageSummary(id="x", size=7)]
        return lower(DiskUsage(image_usage=KindUsage(total_count=1, items=images), images=images), version)

    assert lowered(Version(1, 52)).image_usage
    assert lowered(Version(1, 52)).volumes is UNSET
    assert lowered(Version(1, 51)).image_usage is UNSET
    assert lowered(Version(1, 51)).volumes is None

    assert lowered(Version(1, 42)).builder_size is UNSET
    assert lowered(Version(1, 41)).builder_size == 0
    (image,) = lowered(Version(1, 43)).images or ()
    assert image.virtual_size == 7


def test_aliases_are_lowered() -> None:
    """The container's own endpoints are not touched: they are shown as they are."""
    golden = (Path(__file__).parents[2] / "golden" / "api" / "container_running.json").read_bytes()
    answer = msgspec.json.decode(golden, type=ContainerDetails)
    answer.id, answer.config.hostname = "ab" * 32, "h"
    own = {"bridge": EndpointSettings(), "net": EndpointSettings(aliases=["web"])}
    answer.network_settings.networks = own
    networks = lower(answer, Version(1, 44)).network_settings.networks
    assert {name: endpoint.aliases for name, endpoint in networks.items()} == {
        "bridge": None,
        "net": ["web", "abababababab", "h"],
    }
    assert own["net"].aliases == ["web"]


def test_other_answers_are_left_alone() -> None:
    for answer in ({"Id": "x"}, [], None, ["text"]):
        assert lower(answer, OLDEST) is answer


def test_multiplexed() -> None:
    assert multiplexed(Version(1, 42), tty=False)
    assert not multiplexed(Version(1, 41), tty=False)
    assert not multiplexed(NEWEST, tty=True)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("info", Info), ("version", VersionAnswer), ("image", ImageDetails)],
)
def test_our_answers_have_dockerds_fields_in_its_order(name: str, kind: type) -> None:
    """What dockerd 26 answered is read without anything missing, and its keys come back in the same order."""
    text = (Path(__file__).parents[2] / "golden" / "api" / f"{name}.json").read_text()

    plain = json.loads(text)
    ours = msgspec.to_builtins(msgspec.json.decode(text, type=kind))
    assert [key for key in ours if key in plain] == [key for key in plain if key in ours]

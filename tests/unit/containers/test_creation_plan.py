"""From a request to the plan of a container, before anything is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from havre.containers.container import MountOptions, MountPoint
from havre.containers.create.checks import Asked, check_request
from havre.containers.create.configure import Defaults
from havre.containers.create.neighbours import Neighbours
from havre.containers.create.plan import Plan, plan_creation
from havre.containers.live import Index, Live
from havre.containers.surroundings.idranges import IdRanges
from havre.containers.validate import HostLimits
from havre.errors import InvalidInput, NotFound
from havre.images.summaries import RunImage
from havre.oci.digest import Digest
from havre.oci.platform import Platform
from havre.wire.config import Config, CreateRequest, EndpointSettings, HostConfig, NetworkingConfig
from havre.wire.values import ImageId
from support.rows import container_row

NATIVE, OTHER = Platform("amd64"), Platform("arm64")
LIMITS = HostLimits(cpus=2, runtimes=("runc",), platform=NATIVE)
DEFAULTS = Defaults(runtime="runc", cgroupns_mode="private", unified_cgroups=True, hostname="host")
OLD = "0ld" * 21 + "0"


class Rows:
    """No row is written in a plan."""

    def __init__(self) -> None:
        self.damaged: Mapping[str, bytes] = {}


class NoNetworks:
    """A daemon with one network, known by an ID too."""

    def name_of(self, ref: str) -> str:
        return {"n1d": "mine"}[ref] if ref in ("n1d",) else self._missing(ref)

    def find(self, ref: str) -> Any:
        self._missing(ref)

    def _missing(self, ref: str) -> str:
        raise NotFound(f"network {ref} not found")


def neighbours() -> Neighbours:
    index = Index(Rows())  # type: ignore[arg-type]
    old = container_row(
        "old",
        id=OLD,
        image="sha256:other",
        mounts=[MountPoint(type="volume", name="data", destination="/data", driver="local")],
        mount_options={"/data": MountOptions()},
    )
    index.add(Live(old))
    return Neighbours(index, NoNetworks())  # type: ignore[arg-type]


def asked(host: HostConfig | None = None, **given: Any) -> Asked:
    request = CreateRequest(image="i", host_config=host, **given)
    return check_request(request, LIMITS, IdRanges(None))


def planned(host: HostConfig | None = None, platform: Platform = NATIVE, **given: Any) -> Plan:
    image = RunImage(ImageId("sha256:1"), Config(cmd=["sh"], env=["A=1"]), (Digest("sha256:2"),), platform)
    return plan_creation(asked(host, **given), image, neighbours(), DEFAULTS, NATIVE)


def test_a_request_without_image_or_with_a_bad_name_is_refused_first() -> None:
    with pytest.raises(InvalidInput, match="no command specified"):
        check_request(CreateRequest(), LIMITS, IdRanges(None))
    with pytest.raises(InvalidInput, match="Invalid container name"):
        check_request(CreateRequest(image="i"), LIMITS, IdRanges(None), name="/-")


def test_defaults_of_image_and_daemon_are_made_explicit() -> None:
    plan = planned(env=["B=2"])
    assert (plan.config.cmd, plan.config.env) == (["sh"], ["B=2", "A=1"])
    assert (plan.host.network_mode, plan.host.runtime, plan.host.restart_policy.name) == ("bridge", "runc", "no")
    assert list(plan.networks) == ["bridge"]
    assert (plan.name, plan.warnings) == (None, ())


def test_names_of_other_containers_become_what_they_mean() -> None:
    host = HostConfig(network_mode="container:old", pid_mode="container:old", volumes_from=["old:ro"])
    plan = planned(host)
    assert (plan.host.network_mode, plan.host.pid_mode) == (f"container:{OLD}", f"container:{OLD}")
    assert plan.networks == {}
    (mount,) = plan.mounts
    assert (mount.source, mount.destination, mount.rw, mount.options.no_copy) == ("data", "/data", False, True)


def test_a_container_that_is_not_there_is_no_missing_image() -> None:
    with pytest.raises(InvalidInput, match="No such container: gone"):
        planned(HostConfig(pid_mode="container:gone"))


def test_networks_go_by_their_names() -> None:
    given = NetworkingConfig(endpoints_config={"n1d": EndpointSettings(aliases=["a"])})
    plan = planned(HostConfig(network_mode="n1d"), networking_config=given, mac_address="02:00:00:00:00:01")
    assert plan.networks["mine"].aliases == ["a"]
    assert plan.networks["mine"].mac_address == "02:00:00:00:00:01"
    assert plan.config.mac_address == ""


def test_an_image_of_another_platform_is_warned_of() -> None:
    (warning,) = planned(platform=OTHER).warnings
    assert "does not match the detected host platform" in warning


def test_a_plan_leaves_the_request_alone() -> None:
    host = HostConfig()
    planned(host)
    assert host.runtime == ""

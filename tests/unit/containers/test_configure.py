"""How image and user merge, by value."""

from __future__ import annotations

import pytest

from havre.containers.create.checks import split_request
from havre.containers.create.configure import (
    Defaults,
    check_conflicts,
    command_line,
    default_hostname,
    fill_host_config,
    merge_config,
    plan_endpoints,
)
from havre.containers.surroundings.plan import plan_env
from havre.errors import InvalidInput
from havre.wire.config import Config, CreateRequest, EndpointSettings, Healthcheck, HostConfig

IMAGE = Config(entrypoint=["/entry"], cmd=["serve"], env=["PATH=/image", "A=image"], user="web", working_dir="/srv")
DEFAULTS = Defaults(runtime="crun", cgroupns_mode="private", unified_cgroups=True, hostname="host")


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        (Config(), ["/entry", "serve"]),
        (Config(cmd=["other"]), ["/entry", "other"]),
        (Config(entrypoint=["/mine"]), ["/mine"]),
        (Config(entrypoint=["/mine"], cmd=["x"]), ["/mine", "x"]),
        (Config(entrypoint=[""], cmd=["x"]), ["x"]),
    ],
)
def test_command(user: Config, expected: list[str]) -> None:
    assert command_line(merge_config(user, IMAGE)) == expected


def test_no_command() -> None:
    with pytest.raises(InvalidInput, match="no command specified"):
        merge_config(Config(), Config())


def test_the_rest_of_the_merge() -> None:
    user = Config(env=["A=user", "B=2"], labels={"x": "user"}, exposed_ports={"80/tcp": {}})
    image = Config(cmd=["x"], env=["A=image", "C=3"], labels={"x": "i", "y": "i"}, exposed_ports={"90/tcp": {}})
    merged = merge_config(user, image)
    assert merged.env == ["A=user", "B=2", "C=3"]
    assert merged.labels == {"x": "user", "y": "i"}
    assert set(merged.exposed_ports or {}) == {"80/tcp", "90/tcp"}
    assert user.env == ["A=user", "B=2"]


def test_health_check_merges_by_field() -> None:
    image = Config(cmd=["x"], healthcheck=Healthcheck(test=["CMD", "ok"], retries=3))
    merged = merge_config(Config(healthcheck=Healthcheck(interval=10**9)), image)
    assert merged.healthcheck == Healthcheck(test=["CMD", "ok"], retries=3, interval=10**9)


def test_environment_of_the_process() -> None:
    config = Config(env=["PATH=/mine", "GONE=1", "GONE"], tty=True)
    assert plan_env(config, "box") == ("PATH=/mine", "HOSTNAME=box", "TERM=xterm")


def test_defaults_are_filled_in() -> None:
    host = fill_host_config(HostConfig(memory=64 << 20), DEFAULTS)
    assert (host.network_mode, host.runtime, host.ipc_mode) == ("bridge", "crun", "private")
    assert host.memory_swap == 128 << 20
    assert host.restart_policy.name == "no"
    assert "/proc/kcore" in (host.masked_paths or [])
    assert fill_host_config(HostConfig(privileged=True), DEFAULTS).masked_paths is None


@pytest.mark.parametrize(
    ("config", "host"),
    [
        (Config(hostname="x"), HostConfig(network_mode="container:y")),
        (Config(hostname="x"), HostConfig(uts_mode="host")),
        (Config(), HostConfig(network_mode="container:y", publish_all_ports=True)),
        (Config(), HostConfig(network_mode="host", links=["a:b"])),
    ],
)
def test_conflicting_options(config: Config, host: HostConfig) -> None:
    with pytest.raises(InvalidInput, match="conflicting options"):
        check_conflicts(config, host)


def test_hostname() -> None:
    id = "0123456789abcdef"
    assert default_hostname(id, Config(), HostConfig(), DEFAULTS) == "0123456789ab"
    assert default_hostname(id, Config(hostname="x"), HostConfig(), DEFAULTS) == "x"
    assert default_hostname(id, Config(), HostConfig(network_mode="host"), DEFAULTS) == "host"


def test_endpoints() -> None:
    given = {"default": EndpointSettings(aliases=["a"]), "netid": None}
    planned = plan_endpoints(given, "02:00:00:00:00:01", "bridge", {"netid": "other"})
    assert list(planned) == ["bridge", "other"]
    assert planned["bridge"].aliases == ["a"]
    assert planned["bridge"].mac_address == "02:00:00:00:00:01"


def test_split_leaves_the_request_alone() -> None:
    request = CreateRequest(cmd=["x"], host_config=HostConfig())
    config, host = split_request(request)
    config.hostname, host.runtime = "changed", "changed"
    assert request.hostname == ""
    assert request.host_config is not None
    assert request.host_config.runtime == ""

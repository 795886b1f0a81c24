"""Bad input for new containers: each refusal names what is wrong, in Docker's words."""

from __future__ import annotations

from typing import Any

import pytest

from havre.containers.validate import HostLimits, check_config, check_host_config
from havre.errors import InvalidInput
from havre.golang.ports import parse_port
from havre.oci.platform import Platform
from havre.wire.config import Config, Healthcheck, HostConfig, LogConfig, PortBinding, RestartPolicy

LIMITS = HostLimits(cpus=2, runtimes=("crun", "runc"), platform=Platform("amd64", "linux", variant="v3"))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"working_dir": "rel"}, "the working directory 'rel' is invalid, it needs to be an absolute path"),
        ({"env": ["=x"]}, "invalid environment variable: =x"),
        ({"env": [""]}, "invalid environment variable: "),
        ({"stop_signal": "FOO"}, "invalid signal: FOO"),
        ({"hostname": "h" * 65}, "is too long"),
        ({"exposed_ports": {"80/foo": {}}}, "invalid port specification"),
        ({"healthcheck": Healthcheck(interval=5)}, "Interval in Healthcheck cannot be less than 1ms"),
        ({"healthcheck": Healthcheck(retries=-1)}, "Retries in Healthcheck cannot be negative"),
        ({"healthcheck": Healthcheck(test=["RUN", "x"])}, "Unknown healthcheck type 'RUN'"),
    ],
)
def test_bad_config(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidInput, match=text):
        check_config(Config(**fields))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"memory": 1 << 20}, "Minimum memory limit allowed is 6MB"),
        ({"memory": -1}, "Minimum memory limit allowed is 6MB"),
        ({"memory_swap": 1 << 30}, "You should always set the Memory limit"),
        ({"memory": 64 << 20, "memory_swap": 32 << 20}, "Minimum memoryswap limit should be larger"),
        ({"memory_swappiness": 200}, "valid memory swappiness range is 0-100"),
        ({"nano_cpus": 3 * 10**9}, "Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available"),
        ({"nano_cpus": 10**9, "cpu_period": 100000}, "Nano CPUs and CPU Period cannot both be set"),
        ({"cpuset_cpus": "9"}, "Requested CPUs are not available - requested 9, available: 0-1"),
        ({"cpuset_cpus": "x"}, "Invalid value x for cpuset cpus"),
        ({"blkio_weight": 5}, "Range of blkio weight is from 10 to 1000"),
        ({"oom_score_adj": 2000}, "range for oom score adj is"),
        ({"shm_size": -1}, "SHM size can not be less than 0"),
        ({"cap_add": ["FOO"]}, 'invalid CapAdd: unknown capability: "CAP_FOO"'),
        ({"cap_drop": ["cap_foo"]}, 'invalid CapDrop: unknown capability: "CAP_FOO"'),
        ({"ipc_mode": "foo"}, "invalid IPC mode: foo"),
        ({"pid_mode": "container:"}, "invalid PID mode: container:"),
        ({"runtime": "foo"}, "unknown or invalid runtime name: foo"),
        ({"restart_policy": RestartPolicy(name="foo")}, "unknown policy 'foo'; use one of"),
        ({"restart_policy": RestartPolicy(name="always", maximum_retry_count=1)}, "can only be used with 'on-failure'"),
        ({"auto_remove": True, "restart_policy": RestartPolicy(name="always")}, "can't create 'AutoRemove' container"),
        ({"port_bindings": {"0/tcp": []}}, "invalid port specification"),
        ({"port_bindings": {"80/tcp": [PortBinding(host_port="x")]}}, 'invalid port specification: "x"'),
        ({"port_bindings": {"80/tcp": [PortBinding(host_port="9-8")]}}, 'invalid port specification: "9-8"'),
        ({"extra_hosts": ["nope"]}, 'bad format for add-host: "nope"'),
        ({"extra_hosts": ["a:not-an-ip"]}, "invalid IP address in add-host"),
        ({"log_config": LogConfig(type="foo")}, 'plugin "foo" not found'),
        ({"log_config": LogConfig(type="json-file", config={"foo": "1"})}, "unknown log opt 'foo' for json-file"),
        ({"isolation": "hyperv"}, "only supports 'default'"),
        ({"tmpfs": {"rel": ""}}, "mount path must be absolute"),
    ],
)
def test_bad_host_config(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidInput, match=text.replace("(", r"\(")):
        check_host_config(HostConfig(**fields), LIMITS)


def test_good_ones_pass() -> None:
    host = HostConfig(
        memory=64 << 20,
        cap_add=["NET_ADMIN", "cap_sys_time", "ALL"],
        ipc_mode="container:x",
        port_bindings={"80/tcp": [PortBinding(host_port="8000-8010")], "53/udp": None},
        extra_hosts=["a:1.2.3.4", "b:::1", "c:host-gateway"],
        network_mode="bridge",
    )
    assert check_host_config(host, LIMITS) == []


def test_ports_on_the_host_network_are_warned_of() -> None:
    host = HostConfig(network_mode="host", port_bindings={"80/tcp": []})
    assert check_host_config(host, LIMITS) == ["Published ports are discarded when using host network mode"]


def test_ports() -> None:
    assert parse_port("80") == (80, "tcp")
    assert parse_port("53/UDP") == (53, "udp")

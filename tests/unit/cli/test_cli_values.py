"""Texts of flags to values: sizes, durations, limits, mounts, ports."""

from __future__ import annotations

from typing import Any

import pytest

from havre.cli import values
from havre.cli.mounts import parse_mount
from havre.cli.ports import parse_expose, parse_publish


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("512", 512), ("1k", 1024), ("1kb", 1024), ("1KiB", 1024), ("1.5g", 3 << 29), ("2 MB", 2 << 20),
     ("3b", 3),     ("1p", 1 << 50)],
)  # fmt: skip
def test_sizes(text: str, size: int) -> None:
    assert values.read_bytes(text) == size


@pytest.mark.parametrize("text", ["", "k", "-1", "1x", "1kk", "1,5g", ".5", "1  k", "٣"])
def test_sizes_refused(text: str) -> None:
    with pytest.raises(ValueError, match="invalid size"):
        values.read_bytes(text)


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [("0", 0), ("1s", 10**9), ("1m30s", 90 * 10**9), ("1.5h", 5400 * 10**9), ("-2ms", -2 * 10**6), ("1us", 1000)],
)
def test_durations(text: str, nanoseconds: int) -> None:
    assert values.read_duration(text) == nanoseconds


@pytest.mark.parametrize(
    ("text", "message"),
    [("", 'invalid duration ""'), ("5", 'missing unit in duration "5"'), ("x", 'invalid duration "x"'),
     ("1y", 'unknown unit "y"'), ("--1s", "invalid duration"), ("1..5s", "invalid duration")],
)  # fmt: skip
def test_durations_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        values.read_duration(text)


@pytest.mark.parametrize(("text", "nano"), [("1", 10**9), ("1.5", 15 * 10**8), (".5", 5 * 10**8), ("1/4", 25 * 10**7)])
def test_cpus(text: str, nano: int) -> None:
    assert values.read_decimal(text) == nano


@pytest.mark.parametrize("text", ["x", "", "1/0", "0.0000000001"])
def test_cpus_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"rational number|too precise"):
        values.read_decimal(text)


def test_ulimits() -> None:
    assert values.read_ulimit("nofile=1024:2048") == {"Name": "nofile", "Soft": 1024, "Hard": 2048}
    assert values.read_ulimit("core=-1") == {"Name": "core", "Soft": -1, "Hard": -1}
    for text in ("nofile", "nonsense=1", "nofile=1:2:3", "nofile=x", "nofile=2:1"):
        with pytest.raises(ValueError):
            values.read_ulimit(text)


def test_environment_is_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    import posix

    monkeypatch.setitem(posix.environ, b"HAVRE_TEST_X", b"y=z")
    assert values.check_env("A=b=c") == "A=b=c"
    assert values.check_env("HAVRE_TEST_X") == "HAVRE_TEST_X=y=z"
    assert values.check_env("HAVRE_TEST_ABSENT") == "HAVRE_TEST_ABSENT"
    with pytest.raises(ValueError, match="invalid environment variable: =x"):
        values.check_env("=x")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("host:1.2.3.4", "host:1.2.3.4"), ("host=::1", "host:::1"), ("host:::1", "host:::1"), ("host=[::1]", "host:::1"),
     ("host:host-gateway", "host:host-gateway")],
)  # fmt: skip
def test_hosts(text: str, expected: str) -> None:
    assert values.check_host(text) == expected


def test_networks_with_options() -> None:
    assert values.read_network("name=n,gw-priority=-3")["gw_priority"] == -3
    network = values.read_network('name=n,alias=a,alias=b,"driver-opt=x=1",ip=10.0.0.2')
    assert (network["name"], network["aliases"], network["driver_opts"], network["ip"]) == (
        "n", ["a", "b"], {"x": "1"}, "10.0.0.2"
    )  # fmt: skip
    with pytest.raises(ValueError, match="not specified"):
        values.read_network("alias=a")


def test_gpus() -> None:
    assert values.read_gpu_request("all")["Count"] == -1
    request = values.read_gpu_request('"device=0,1","capabilities=compute,utility"')
    assert request["DeviceIDs"] == ["0", "1"]
    assert request["Capabilities"] == [["compute", "utility", "gpu"]]
    with pytest.raises(ValueError, match="count must be an integer"):
        values.read_gpu_request("x")


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("type=bind,src=/a,dst=/b,ro", {"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": True}),
        ("target=/v", {"Type": "volume", "Target": "/v"}),
        (
            'type=volume,source=v,target=/v,volume-nocopy,volume-label=a=b,"volume-opt=o=x,y"',
            {"Type": "volume", "Source": "v", "Target": "/v",
             "VolumeOptions": {"NoCopy": True, "Labels": {"a": "b"}, "DriverConfig": {"Options": {"o": "x,y"}}}},
        ),
        (
            "type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1777",
            {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 0o1777}},
        ),
        (
            "type=bind,src=/a,dst=/b,bind-propagation=rslave,bind-recursive=disabled",
            {"Type": "bind", "Source": "/a", "Target": "/b",
             "BindOptions": {"Propagation": "rslave", "NonRecursive": True}},
        ),
    ],
)  # fmt: skip
def test_mounts(text: str, mount: dict[str, Any]) -> None:
    assert parse_mount(text) == mount


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("type=bind", "target is required"),
        ("type=,target=/x", "type is required"),
        ("bind,x", "invalid field 'bind' must be a key=value pair"),
        ("type=bind,target=/x,foo=1", "unexpected key 'foo' in 'foo=1'"),
        ("target=/x,readonly=maybe", "invalid value for readonly: maybe"),
        ("target=/x,tmpfs-size=1m", "cannot mix 'tmpfs-\\*' options with mount type 'volume'"),
        ("type=tmpfs,target=/x,tmpfs-mode=9", "invalid value for tmpfs-mode: 9"),
        ("type=bind,target=/x,bind-recursive=readonly", "option 'bind-recursive=readonly' requires 'readonly' to be"),
        ("type=bind,target=/x,bind-recursive=writable", "option 'bind-recursive=writable' requires 'readonly' to be"),
        ("type=bind,target=/x,ro,bind-recursive=readonly", "requires 'bind-propagation=rprivate' to be specified"),
        ("type=bind,target=/x,bind-recursive=true", "invalid value for bind-recursive: true"),
        ("type=bind,target=/x,bind-recursive", "invalid field 'bind-recursive' must be a key=value pair"),
        ('"', "parse error"),
    ],
)
def test_mounts_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_mount(text)


@pytest.mark.parametrize(
    ("specs", "bindings"),
    [
        (["80"], {"80/tcp": [{"HostIp": "", "HostPort": ""}]}),
        (["8080:80/udp"], {"80/udp": [{"HostIp": "", "HostPort": "8080"}]}),
        (["127.0.0.1::80"], {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}),
        (["[::1]:8080:80"], {"80/tcp": [{"HostIp": "::1", "HostPort": "8080"}]}),
        (["8000-8001:80-81"],
         {"80/tcp": [{"HostIp": "", "HostPort": "8000"}], "81/tcp": [{"HostIp": "", "HostPort": "8001"}]}),
        (["8000-8009:80"], {"80/tcp": [{"HostIp": "", "HostPort": "8000-8009"}]}),
        (["1:80", "2:80"], {"80/tcp": [{"HostIp": "", "HostPort": "1"}, {"HostIp": "", "HostPort": "2"}]}),
        (["published=8080,target=80,protocol=udp"], {"80/udp": [{"HostIp": "", "HostPort": "8080"}]}),
    ],
)  # fmt: skip
def test_publish(specs: list[str], bindings: dict[str, Any]) -> None:
    assert parse_publish(specs) == bindings


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("99999:1", "Invalid hostPort: 99999"),
        ("1:99999", "Invalid containerPort: 99999"),
        ("x", "Invalid containerPort: x"),
        ("8080:", "No port specified: 8080:<empty>"),
        ("1.2.3:1:1", "Invalid ip address: 1.2.3"),
        ("1-3:1-2", "Invalid ranges specified for container and host Ports: 1-2 and 1-3"),
        ("1:1/foo", "Invalid proto: foo"),
        ("9-8:9-8", "Invalid containerPort: 9-8"),
    ],
)
def test_publish_refused(spec: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_publish([spec])
    assert str(caught.value) == message


def test_expose() -> None:
    assert parse_expose(["80", "90-91/udp"]) == ["80/tcp", "90/udp", "91/udp"]
    with pytest.raises(ValueError, match="invalid range format for --expose: z"):
        parse_expose(["z"])
    with pytest.raises(ValueError, match="invalid port format for --expose: 1:2"):
        parse_expose(["1:2"])

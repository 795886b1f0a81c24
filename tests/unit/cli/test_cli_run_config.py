"""`run` flags to the body of a create request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from havre.cli.parser import parse
from havre.cli.run_config import create_body
from havre.cli.run_flags import RUN


def body(*words: str) -> dict[str, Any]:
    options, arguments = parse(RUN, [*words, "image"], stop=True)
    return create_body(options, arguments[0], arguments[1:])


def test_plain() -> None:
    request = body()
    assert (request["Image"], request["Cmd"], request["Entrypoint"], request["Env"]) == ("image", None, None, [])
    assert (request["AttachStdin"], request["AttachStdout"], request["AttachStderr"]) == (False, True, True)
    assert "Healthcheck" not in request
    assert "StopTimeout" not in request
    host = request["HostConfig"]
    assert (host["NetworkMode"], host["RestartPolicy"], host["Init"], host["MemorySwappiness"]) == (
        "default", {"Name": "no", "MaximumRetryCount": 0}, None, -1
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "path", "value"),
    [
        (["-d"], "AttachStdout", False),
        (["-it"], "StdinOnce", True),
        (["-a", "STDERR"], "AttachStdout", False),
        (["--entrypoint", ""], "Entrypoint", [""]),
        (["-p", "127.0.0.1:80:8080"], "ExposedPorts", {"8080/tcp": {}}),
        (["-p", "80:8080"], "HostConfig.PortBindings", {"8080/tcp": [{"HostIp": "", "HostPort": "80"}]}),
        (["--expose", "1-2/udp"], "ExposedPorts", {"1/udp": {}, "2/udp": {}}),
        (["-v", "/a:/b:ro", "-v", "/anonymous"], "HostConfig.Binds", ["/a:/b:ro"]),
        (["-v", "/a:/b:ro", "-v", "/anonymous"], "Volumes", {"/anonymous": {}}),
        (["--restart", "on-failure:3"], "HostConfig.RestartPolicy", {"Name": "on-failure", "MaximumRetryCount": 3}),
        (["--cpus", "1.5"], "HostConfig.NanoCpus", 1_500_000_000),
        (["--memory", "64m", "--memory-swap", "-1"], "HostConfig.MemorySwap", -1),
        (["--tmpfs", "/t:size=1m", "--tmpfs", "/u"], "HostConfig.Tmpfs", {"/t": "size=1m", "/u": ""}),
        (["--device", "/dev/a"], "HostConfig.Devices",
         [{"PathOnHost": "/dev/a", "PathInContainer": "/dev/a", "CgroupPermissions": "rwm"}]),
        (["--device", "/dev/a:/dev/b:r"], "HostConfig.Devices",
         [{"PathOnHost": "/dev/a", "PathInContainer": "/dev/b", "CgroupPermissions": "r"}]),
        (["--device", "vendor.com/class=x"], "HostConfig.DeviceRequests",
         [{"Driver": "cdi", "DeviceIDs": ["vendor.com/class=x"]}]),
        (["--no-healthcheck"], "Healthcheck", {"Test": ["NONE"]}),
        (["--health-cmd", "x", "--health-interval", "2s"], "Healthcheck.Interval", 2_000_000_000),
        (["--security-opt", "systempaths=unconfined"], "HostConfig.MaskedPaths", []),
        (["--security-opt", "label:disable"], "HostConfig.SecurityOpt", ["label:disable"]),
        (["--network", "host"], "HostConfig.NetworkMode", "host"),
        (["--init"], "HostConfig.Init", True),
        (["-l", "a=b", "-l", "c"], "Labels", {"a": "b", "c": ""}),
        (["--stop-timeout", "0"], "StopTimeout", 0),
        (["--sysctl", "a.b=1"], "HostConfig.Sysctls", {"a.b": "1"}),
        (["--log-opt", "max-size=1m"], "HostConfig.LogConfig", {"Type": "", "Config": {"max-size": "1m"}}),
        (["--dns-opt", "x", "--dns-option", "y"], "HostConfig.DnsOptions", ["y", "x"]),
    ],
)  # fmt: skip
def test_flags(words: list[str], path: str, value: Any) -> None:
    found: Any = body(*words)
    for name in path.split("."):
        found = found[name]
    assert found == value


def test_networks() -> None:
    request = body(
        "--network", "a", "--network", "name=b,alias=x,ip=10.0.0.3", "--network-alias", "y", "--ip", "10.1.0.2"
    )
    first, second = (request["NetworkingConfig"]["EndpointsConfig"][name] for name in "ab")
    assert (first["Aliases"], first["IPAMConfig"]["IPv4Address"]) == (["y"], "10.1.0.2")
    assert (second["Aliases"], second["IPAMConfig"]["IPv4Address"]) == (["x"], "10.0.0.3")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rm", "--restart", "always"], "Conflicting options: --restart and --rm"),
        (["--network", "a", "--network", "a"], 'network "a" is specified multiple times'),
        (["--cpus", "1", "--cpu-quota", "5"], "Nano CPUs and CPU Quota"),
        (["--no-healthcheck", "--health-cmd", "x"], "--no-healthcheck conflicts with --health"),
        (["--security-opt", "foo"], 'Invalid --security-opt: "foo"'),
        (["--memory-swappiness", "200"], "Valid memory swappiness range is 0-100"),
        (["--env-file", "/no/such"], "open /no/such: no such file or directory"),
        (["--restart", "on-failure:x"], "maximum retry count must be an integer"),
        (["--cgroupns", "x"], "--cgroupns: invalid CGROUP mode"),
    ],
)
def test_refusals(words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        body(*words)


def test_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import posix

    monkeypatch.setitem(posix.environ, b"FROM_HERE", b"1")
    environment = tmp_path / "env"
    environment.write_text("# note\n\nA=b c\nFROM_HERE\nNOT_SET_ANYWHERE\n")
    profile = tmp_path / "seccomp.json"
    profile.write_text('{ "defaultAction": "SCMP_ACT_ALLOW" }')
    request = body("--env-file", str(environment), "-e", "Z=1", "--security-opt", f"seccomp={profile}")
    assert request["Env"] == ["A=b c", "FROM_HERE=1", "Z=1"]
    assert request["HostConfig"]["SecurityOpt"] == ['seccomp={"defaultAction":"SCMP_ACT_ALLOW"}']
    environment.write_text("A B=c\n")
    with pytest.raises(ValueError, match="variable 'A B' contains whitespaces"):
        body("--env-file", str(environment))

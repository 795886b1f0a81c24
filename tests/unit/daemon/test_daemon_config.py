"""dockerd's command line and daemon.json, and what `-H` may ask for."""

from __future__ import annotations

import re
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from havre.api.server import InheritedListener, TcpListener, UnixListener
from havre.daemon.config import (
    DaemonConfig,
    UlimitDefault,
    configure,
    decode_file,
    load,
    merge,
    parse_arguments,
)
from havre.daemon.configvalues import check_values
from havre.daemon.confinement import default_security
from havre.daemon.directives import DIRECTIVES, man_page
from havre.daemon.hosts import plan_listeners
from havre.daemon.process import pid_file
from havre.errors import Conflict, Failed, InvalidInput
from havre.runtime.plan import Security


def parse(*words: str) -> DaemonConfig:
    return configure(parse_arguments(words).values)


def test_flags_in_all_spellings() -> None:
    config = parse("-D", "-Hunix:///a", "-H", "tcp://127.0.0.1:1", "--data-root=/d", "--bip", "10.0.0.1/24")
    assert config.debug
    assert config.hosts == ("unix:///a", "tcp://127.0.0.1:1")
    assert config.data_root == Path("/d")
    assert parse("--data-root", "d", "--exec-root=e/f").exec_root == Path.cwd() / "e/f"
    assert config.bip == "10.0.0.1/24"
    assert parse("-DHunix:///b").hosts == ("unix:///b",)


def test_maps_and_lists() -> None:
    config = parse("--add-runtime", "kata=/k", "--default-ulimit", "nofile=1:2", "--registry-mirror", "http://m")
    assert config.runtimes == {"kata": "/k"}
    assert config.default_ulimits == (UlimitDefault(name="nofile", soft=1, hard=2),)
    assert config.registry_mirrors == ("http://m",)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--nonesuch"], "unknown flag: --nonesuch"),
        (["-Z"], "unknown shorthand flag: 'Z'"),
        (["serve"], "unexpected argument: serve"),
        (["--data-root"], "flag needs an argument: --data-root"),
        (["-Dfoo"], "unknown shorthand flag: 'f' in -Dfoo"),
        (["--debug=maybe"], 'invalid argument "maybe" for "-D, --debug" flag: strconv.ParseBool: parsing "maybe"'),
        (["--mtu", "x"], 'invalid argument "x" for "--mtu" flag: strconv.ParseInt: parsing "x": invalid syntax'),
        (["--add-runtime", "x"], "expected NAME=VALUE"),
        (["--log-level", "loud"], "invalid logging level: loud"),
        (["--default-ulimit", "nofile=x"], "invalid ulimit"),
        (["--default-network-opt", "bridge=x"], "expected NAME=KEY=VALUE"),
        (["--iptables=false", "--icc=false"], "You specified --iptables=false with --icc=false"),
    ],
)
def test_bad_flags(words: list[str], text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse(*words)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[]", "a JSON object is expected"),
        ("[" * 100_000, "nested too deeply"),
        ("{", "unable to configure the daemon with file f"),
        ('{"nope": 1}', "don't match any configuration option: nope"),
        ('{"debug": "yes"}', "debug: expected a flag"),
        ('{"hosts": "x"}', "hosts: expected a list"),
        ('{"dns": [5]}', "dns: expected a list of strings"),
        ('{"mtu": true}', "mtu: expected a number"),
    ],
)
def test_bad_files(text: str, problem: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        decode_file(text, "f")
    assert problem in str(caught.value)


def test_a_directive_may_be_given_once() -> None:
    with pytest.raises(InvalidInput, match=r"log-level: \(from flag: debug, from file: info\)"):
        merge({"log-level": "debug"}, {"log-level": "info"}, "f")


def test_an_empty_directory_of_devices_is_none() -> None:
    assert configure({}).cdi_spec_dirs == ("/etc/cdi", "/var/run/cdi")
    flags = parse_arguments(["--cdi-spec-dir", ""]).values
    assert configure(merge(flags, {}, "f")).cdi_spec_dirs == ()
    assert configure({"cdi-spec-dirs": ["/cdi"], "features": {"cdi": False}}).cdi_spec_dirs == ()


def test_file(tmp_path: Path) -> None:
    file = tmp_path / "daemon.json"
    file.write_text('{"runtimes": {"k": {"path": "/k"}}, "default-ulimits": {"nofile": {"Soft": 1, "Hard": 2}}}')
    config = load({"config-file": str(file), "debug": True})
    assert (config.runtimes, config.debug) == ({"k": "/k"}, True)
    assert config.default_ulimits[0].hard == 2
    with pytest.raises(InvalidInput, match="no such file"):
        load({"config-file": str(tmp_path / "none")})


def test_null_says_nothing_and_nested_keys_have_any_case() -> None:
    assert decode_file("null", "f") == {}
    text = (
        '{"debug": null, "mtu": null, "labels": null, "default-shm-size": null, "dns": [], "log-opts": {"tag": null},'
        ' "runtimes": {"k": {"PATH": "/k", "runtimeArgs": null}}, "default-network-opts": {"bridge": null},'
        ' "default-address-pools": [{"Base": "10.0.0.0/8", "SIZE": 24}], "default-ulimits": {"core": {"SOFT": 1}},'
        ' "builder": {"GC": {"Enabled": false, "policy": null}}}'
    )
    config = configure(decode_file(text, "f"))
    assert (config.debug, config.mtu, config.labels, config.default_shm_size) == (False, 1500, (), None)
    assert (config.log_opts, config.runtimes) == ({"tag": ""}, {"k": "/k"})
    assert (config.default_network_opts, config.default_address_pools) == ({"bridge": {}}, (("10.0.0.0/8", 24),))
    assert (config.default_ulimits[0].hard, config.builder.enabled) == (1, False)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\xff\xfe", "it is not UTF-8"),
        (b'{"runtimes": {"k": 5}}', "invalid runtime k"),
        (b'{"runtimes": {"k": {"path": 5}}}', "invalid runtime k"),
        (b'{"default-ulimits": {"nofile": {"Soft": "many"}}}', "invalid ulimit nofile"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, content: bytes, problem: str) -> None:
    file = tmp_path / "daemon.json"
    file.write_bytes(content)
    with pytest.raises(InvalidInput, match=problem):
        load({"config-file": str(file)})


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="Is a directory"):
        load({"config-file": str(tmp_path)})
    with pytest.raises(Failed, match="cannot write the PID file"), pid_file(tmp_path):
        pass


def test_what_has_no_effect_is_kept_in_mind() -> None:
    assert parse("--raw-logs", "--containerd=/x").ignored == ("containerd", "raw-logs")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"selinux-enabled": true}', "selinux-enabled: True is not supported: SELinux labels are not supported"),
        ('{"rootless": true}', "rootless: True is not supported"),
        ('{"api-cors-header": "*"}', r"api-cors-header: \* is not supported"),
        ('{"cpu-rt-runtime": 950000}', "cpu-rt-runtime: 950000 is not supported"),
        ('{"cpu-rt-period": 1000000}', "cpu-rt-period: 1000000 is not supported"),
        ('{"exec-opts": ["native.cgroupdriver=systemd"]}', "exec-opts: native.cgroupdriver=systemd is not supported"),
        ('{"storage-opts": ["overlay2.size=1G"]}', "storage-opts: overlay2.size=1G is not supported"),
        ('{"runtimes": {"k": {"path": "/k", "runtimeArgs": ["-x"]}}}', "runtimes: k: runtimeArgs is not supported"),
        ('{"runtimes": {"k": {"runtimeType": "io.x"}}}', "runtimes: k: runtimeType is not supported"),
        ('{"default-ipc-mode": "host"}', 'IPC mode "host" is not supported as default value'),
        ('{"default-ipc-mode": "container:x"}', 'IPC mode "container:x" is not supported as default value'),
        ('{"default-ipc-mode": "odd"}', r"default IPC mode setting \(odd\) is invalid"),
        ('{"default-cgroupns-mode": "odd"}', r"default cgroup namespace mode \(odd\) is invalid"),
        ('{"no-new-privileges": "yes"}', "no-new-privileges: expected a flag"),
        ('{"authorization-plugins": "x"}', "authorization-plugins: expected a list"),
        ('{"seccomp-profile": 1}', "seccomp-profile: expected a text"),
        ('{"oom-score-adjust": -500}', "don't match any configuration option: oom-score-adjust"),
    ],
)
def test_what_would_guard_less_than_it_says_is_refused_by_name(tmp_path: Path, content: str, problem: str) -> None:
    file = tmp_path / "daemon.json"
    file.write_text(content)
    with pytest.raises(InvalidInput, match=problem):
        check_values(load({"config-file": str(file)}))


def test_what_is_the_case_anyway_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "daemon.json"
    file.write_text(
        '{"selinux-enabled": false, "rootless": false, "api-cors-header": "", "cpu-rt-runtime": 0,'
        ' "exec-opts": ["native.cgroupdriver=cgroupfs"], "storage-opts": ["overlay2.override_kernel_check=true"],'
        ' "default-ipc-mode": "shareable", "default-cgroupns-mode": "private", "no-new-privileges": true}'
    )
    config = load({"config-file": str(file)})
    check_values(config)
    assert (config.default_ipc_mode, config.default_cgroupns_mode) == ("shareable", "private")
    assert config.no_new_privileges
    assert config.ignored == ()


def test_a_seccomp_profile_is_read_before_anything_starts(tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    for text, problem in (
        (None, "No such file or directory"),
        ("{", "unexpected EOF"),
        ("[]", "an object is expected"),
        ("[" * 100_000, "nested too deeply"),
        ('{"syscalls": []}', "missing required field defaultAction"),
    ):
        if text is not None:
            file.write_text(text)
        with pytest.raises(InvalidInput, match=rf"seccomp-profile: opening seccomp profile \({file}\).*{problem}"):
            default_security(parse("--seccomp-profile", str(file)))
    file.write_text('{"defaultAction": "SCMP_ACT_ALLOW"}')
    assert default_security(parse("--seccomp-profile", str(file))).seccomp == {"defaultAction": "SCMP_ACT_ALLOW"}
    assert default_security(parse("--seccomp-profile=unconfined")).seccomp == "unconfined"
    assert default_security(parse("--seccomp-profile=builtin", "--no-new-privileges")) == Security(
        no_new_privileges=True
    )


def listeners(**fields: Any) -> list[Any]:
    return list(plan_listeners(DaemonConfig(**fields), []))


def test_sockets() -> None:
    assert listeners(hosts=("",), group="g") == [UnixListener(Path("/run/havre.sock"), "g")]
    assert listeners(hosts=("unix:///x",), group="g") == [UnixListener(Path("/x"), "g")]
    assert listeners(hosts=("tcp://127.0.0.1:80",)) == [TcpListener("127.0.0.1", 80)]
    assert listeners(hosts=("tcp://[::1]:80",)) == [TcpListener("::1", 80)]


def test_plain_tcp_to_the_world_must_be_said() -> None:
    with pytest.raises(InvalidInput, match="refusing to listen"):
        listeners(hosts=("tcp://0.0.0.0:2375",))
    assert listeners(hosts=("tcp://0.0.0.0:2375",), tls=False) == [TcpListener("0.0.0.0", 2375)]


def test_sockets_of_systemd_are_guarded_alike(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as near, socket.create_server(("0.0.0.0", 0)) as far:
        plain = DaemonConfig(hosts=("fd://",))
        assert plan_listeners(plain, [near.fileno()]) == [InheritedListener(near.fileno())]
        with pytest.raises(InvalidInput, match="refusing to listen on fd://"):
            plan_listeners(plain, [far.fileno()])
        assert plan_listeners(replace(plain, tls=False), [far.fileno()]) == [InheritedListener(far.fileno())]
        missing = replace(plain, tls=True, tlsverify=True, tlscert=tmp_path / "none")
        with pytest.raises(InvalidInput, match="cannot use the TLS files"):
            plan_listeners(missing, [near.fileno()])
    with socket.socket(socket.AF_UNIX) as door:
        assert plan_listeners(missing, [door.fileno()]) == [InheritedListener(door.fileno())]


@pytest.mark.parametrize("host", ["fd://", "http://x", "tcp://127.0.0.1:x"])
def test_bad_hosts(host: str) -> None:
    with pytest.raises(InvalidInput):
        listeners(hosts=(host,))


def test_pid_file(tmp_path: Path) -> None:
    path = tmp_path / "run" / "pid"
    with pid_file(path):
        assert path.read_text().strip().isdecimal()
    assert not path.exists()
    path.write_text("999999999\n")
    with pid_file(path):
        assert path.exists()


def test_pid_file_of_a_living_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pid"
    path.write_text("1\n")
    monkeypatch.setattr("havre.daemon.process._living_daemon", lambda path: 1)
    with pytest.raises(Conflict, match="process with PID 1 is still running"), pid_file(path):
        pass


def test_the_default_size_of_shared_memory() -> None:
    assert configure({"default-shm-size": "1.5g"}).default_shm_size == 3 << 29
    with pytest.raises(InvalidInput, match="default-shm-size: invalid size: 'much'"):
        configure({"default-shm-size": "much"})


def test_the_manual_page_has_every_directive_that_counts() -> None:
    page = man_page()
    for directive in (each for each in DIRECTIVES if each.used):
        word = f"--{directive.flag}" if directive.flag else directive.key
        assert word.replace("-", "\\-") in page
        assert directive.help.replace("-", "\\-") in page
    assert not re.search(r"^['.](?!(TH|SH|B|TP)\b)", page, re.MULTILINE)

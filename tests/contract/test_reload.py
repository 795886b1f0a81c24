"""SIGHUP: what changes without a restart, and what is told of it."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from support.engines import HAVRED, Dockerd, Engine, Havred, serving
from support.imagery import archive, config_of, layer_tar
from support.raw import ask
from support.registry import real_registry
from support.waiting import until


class _WithFile(Havred):
    """Our daemon with a configuration file of the test's."""

    def __init__(self, file: Path, flags: Sequence[str]) -> None:
        super().__init__(flags)
        self._file = file

    def arguments(self) -> list[str]:
        words = super().arguments()
        words[words.index("--config-file") + 1] = str(self._file)
        return words


@pytest.fixture
def file(havred: Engine) -> Iterator[Path]:
    path = havred.root / "daemon.json"
    yield path
    path.write_text("{}")
    reload(havred)
    until(lambda: havred.out("info", "-f", "{{len .Labels}}") == "0", "the old configuration")


def reload(engine: Engine) -> None:
    subprocess.run(["kill", "-HUP", str(engine.pid)], check=True)


def test_what_a_reload_changes(havred: Engine, file: Path) -> None:
    fresh = {
        "debug": True,
        "labels": ["a=b"],
        "registry-mirrors": ["https://mirror.example"],
        "insecure-registries": ["10.11.0.0/16", "10.11.0.0/16"],
    }
    file.write_text(json.dumps(fresh))
    with subprocess.Popen(
        ["docker", "events", "--since", "0", "--filter", "type=daemon", "--format", "{{json .}}"],
        env=havred.env,
        stdout=subprocess.PIPE,
        text=True,
    ) as events:
        reload(havred)
        assert events.stdout is not None
        for line in events.stdout:
            told = json.loads(line)
            if told["Action"] == "reload" and told["Actor"]["Attributes"]["labels"] == '["a=b"]':
                break
        events.send_signal(signal.SIGTERM)
    attributes = told["Actor"]["Attributes"]
    assert attributes["debug"] == "true"
    assert attributes["registry-mirrors"] == '["https://mirror.example"]'
    info = json.loads(havred.out("info", "-f", "{{json .}}"))
    assert info["Debug"] is True
    assert info["Labels"] == ["a=b"]
    assert info["RegistryConfig"]["Mirrors"] == ["https://mirror.example/"]
    assert info["RegistryConfig"]["IndexConfigs"]["docker.io"]["Mirrors"] == ["https://mirror.example/"]
    assert info["RegistryConfig"]["InsecureRegistryCIDRs"].count("10.11.0.0/16") == 1
    assert info["NGoroutines"] > 0


def test_a_reload_tells_what_dockerd_tells(havred: Engine, file: Path) -> None:
    file.write_text(json.dumps({"default-shm-size": "16M", "features": {"cdi": False}, "max-download-attempts": 7}))
    began = time.time()
    reload(havred)
    until(lambda: "16777216" in havred.log.read_text(), "the reload")
    window = ("--since", f"{began:.9f}", "--until", f"{time.time():.9f}", "--filter", "event=reload")
    told = json.loads(havred.out("events", *window, "--format", "{{json .Actor.Attributes}}"))
    assert set(told) == {
        "allow-nondistributable-artifacts", "debug", "default-cgroupns-mode", "default-ipc-mode", "default-runtime",
        "default-shm-size", "features", "insecure-registries", "labels", "live-restore", "max-concurrent-downloads",
        "max-concurrent-uploads", "max-download-attempts", "name", "registry-mirrors", "runtimes", "shutdown-timeout",
    }  # fmt: skip
    assert (told["max-download-attempts"], told["labels"]) == ("7", "[]")
    assert havred.out("run", "--rm", "busybox", "df", "-k", "/dev/shm").split()[-5] == "16384"
    file.write_text('{"default-shm-size": "much"}')
    reload(havred)
    until(
        lambda: (
            "configuration not reloaded: unable to configure the daemon: default-shm-size" in havred.log.read_text()
        ),
        "the refusal",
    )


def test_the_builder_that_clients_are_told_to_ask_for(tmp_path: Path) -> None:
    def told() -> str | None:
        return ask(engine.socket, "GET", "/_ping").headers["Builder-Version"]

    file = tmp_path / "daemon.json"
    for unopened in (_WithFile(file, ()), Dockerd(("--config-file", str(file)))):
        file.write_text('{"features": {"buildkit": false}}')
        with serving(unopened) as engine:
            assert told() == "1", engine.name
            file.write_text('{"features": {"buildkit": true}}')
            reload(engine)
            until(lambda: told() == "2", f"the reload of {engine.name}")
            assert "the feature buildkit has no effect" not in engine.log.read_text()


def test_a_daemon_starts_without_the_program_of_a_runtime(archive: Path, tmp_path: Path) -> None:
    file = tmp_path / "daemon.json"
    runc = {"runtimeType": "io.containerd.runc.v2", "options": {"BinaryName": "runc"}}
    file.write_text(json.dumps({"runtimes": {"gone": {"path": "/no/such/runtime"}, "shim": runc}, "debug": True}))
    flags = ("--userland-proxy-path", "/usr/bin/docker-proxy", "--feature", "cdi=false")
    with serving(_WithFile(file, flags), archive) as engine:
        failed = engine.docker("run", "--rm", "--runtime", "gone", "busybox", "true", check=127).stderr
        assert "/no/such/runtime: no such file or directory" in failed
        for name in ("shim", "io.containerd.runc.v2"):
            assert engine.out("run", "--rm", "--runtime", name, "busybox", "echo", "ran") == "ran"
        other = engine.docker("create", "--runtime", "io.containerd.kata.v2", "busybox").stderr
        assert "unknown or invalid runtime name: io.containerd.kata.v2: containerd's shims are not supported" in other
        assert "--add-runtime kata=/usr/bin/kata-runtime" in other
        assert json.loads(engine.out("info", "-f", "{{json .CDISpecDirs}}")) == []
        refused = engine.docker("run", "--rm", "--device", "vendor.example/class=one", "busybox", "true", check=125)
        assert 'could not select device driver "cdi" with capabilities: []' in refused.stderr
        log = engine.log.read_text()
        assert log.count("level=debug") >= 4
        assert "the program of runtime gone is missing: /no/such/runtime" in log
        assert "userland-proxy-path" not in log


def test_a_bad_file_changes_nothing(havred: Engine, file: Path) -> None:
    file.write_text('{"labels": ["kept=1"]}')
    reload(havred)
    until(lambda: havred.out("info", "-f", "{{json .Labels}}") == '["kept=1"]', "the label")
    file.write_text('{"labels": ["new=1"], "dns": ["odd"]}')
    reload(havred)
    refused = "configuration not reloaded: unable to configure the daemon: dns: odd is not an ip address"
    until(lambda: refused in havred.log.read_text(), "the refusal in the log")
    assert havred.out("info", "-f", "{{json .Labels}}") == '["kept=1"]'


def test_a_bad_file_is_refused_at_the_start(tmp_path: Path) -> None:
    file = tmp_path / "daemon.json"
    file.write_text('{"log-driver": "odd"}')
    said = _fails_to_start(tmp_path, "--config-file", str(file))
    assert 'log-driver: error looking up logging plugin odd: plugin "odd" not found' in said


def test_a_host_without_cgroups_is_refused_at_the_start(tmp_path: Path) -> None:
    hidden = ("unshare", "--mount", "sh", "-c", 'umount --lazy --recursive /sys/fs/cgroup && exec "$@"', "sh")
    said = _fails_to_start(tmp_path, before=hidden)
    assert "no cgroup hierarchy is mounted below /sys/fs/cgroup" in said


def _fails_to_start(directory: Path, *flags: str, before: Sequence[str] = ()) -> str:
    """What a daemon with these flags, run by the command `before`, says at its end."""
    roots = ("--data-root", f"{directory}/d", "--exec-root", f"{directory}/e", "-H", f"unix://{directory}/s")
    done = subprocess.run([*before, HAVRED, *flags, *roots], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    return done.stderr


def test_how_many_layers_are_transferred_at_once(havred: Engine, file: Path, tmp_path: Path) -> None:
    with real_registry(tmp_path / "registry", inside=havred.inside) as registry:

        def waited(case: str) -> list[bool]:
            """Whether a layer had to wait: of a push, of a pull. The pulled layers were never in the engine."""
            havred.docker("load", stdin=_two_layers(f"{registry.host}/pushed:{case}"), check=0)
            pushed = havred.out("push", f"{registry.host}/pushed:{case}")
            laid_out, name = tmp_path / f"{case}.tar", f"{registry.host}/pulled:{case}"
            laid_out.write_bytes(_two_layers(name))
            copy = ("skopeo", "copy", "-q", "--dest-tls-verify=false", f"docker-archive:{laid_out}", f"docker://{name}")
            subprocess.run([*havred.inside, *copy], check=True)
            pulled = havred.out("pull", name)
            return [": Waiting" in pushed, ": Waiting" in pulled]

        assert waited("several") == [False, False]
        file.write_text('{"max-concurrent-downloads": 1, "max-concurrent-uploads": 1, "labels": ["slow=1"]}')
        reload(havred)
        until(lambda: havred.out("info", "-f", "{{len .Labels}}") == "1", "the new configuration")
        assert waited("one") == [True, True]


def _two_layers(name: str) -> bytes:
    """An archive for `docker load` of the image `name`, whose two layers no other image has."""
    layers = [layer_tar("base", content=name.encode()), layer_tar("top", content=name.encode())]
    config = config_of(*layers)
    names = json.dumps([{"Config": "c.json", "RepoTags": [name], "Layers": ["0.tar", "1.tar"]}]).encode()
    return archive({"0.tar": layers[0], "1.tar": layers[1], "c.json": config, "manifest.json": names})


def test_runtimes_and_what_is_told_of_them(havred: Engine, file: Path) -> None:
    slow = havred.root / "slow-runc"
    slow.write_text('#!/bin/sh\nexec runc "$@"\n')
    slow.chmod(0o755)
    limits = {"max-concurrent-downloads": 1, "max-concurrent-uploads": 7}
    file.write_text(json.dumps({"runtimes": {"slow": {"path": str(slow)}}, "default-runtime": "slow", **limits}))
    began = time.time()
    reload(havred)
    until(lambda: havred.out("info", "-f", "{{.DefaultRuntime}}") == "slow", "the default runtime")
    window = ("--since", f"{began:.9f}", "--until", f"{time.time():.9f}", "--filter", "event=reload")
    told = json.loads(havred.out("events", *window, "--format", "{{json .Actor.Attributes}}"))
    assert told.items() >= {"default-runtime": "slow", "runtimes": f"slow:{slow}"}.items()
    assert told.items() >= {key: str(value) for key, value in limits.items()}.items()
    havred.out("run", "-d", "--name", "new", "busybox", "sleep", "1000")
    assert havred.out("inspect", "-f", "{{.HostConfig.Runtime}}", "new") == "slow"

    file.write_text('{"default-runtime": "none"}')
    reload(havred)
    refused = "configuration not reloaded: the default runtime none is not installed"
    until(lambda: refused in havred.log.read_text(), "the refusal in the log")
    assert havred.out("info", "-f", "{{.DefaultRuntime}}") == "slow"

    file.write_text("{}")
    reload(havred)
    until(lambda: havred.out("info", "-f", "{{.DefaultRuntime}}") != "slow", "the old default runtime")
    assert havred.out("exec", "new", "echo", "still") == "still"
    assert "unknown or invalid runtime name: slow" in havred.docker("create", "--runtime", "slow", "busybox").stderr
    havred.out("rm", "-f", "new")

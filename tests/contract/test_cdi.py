"""`--device vendor/class=name` with a description of the test's own."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.building import write_context
from support.engines import Engine
from support.waiting import until

_OPEN = {"class": "open-to-all", "autoallow": "true"}
OPTIONS = ("run", "--rm", "--network", "none")


def hook(when: str, script: str) -> dict[str, Any]:
    return {"hookName": when, "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["FROM=the hook"], "timeout": 10}


@pytest.fixture
def marks(havred: Engine, tmp_path: Path) -> Iterator[Path]:
    """A directory that hooks write into; the daemon knows the devices described here."""
    marks = tmp_path / "marks"
    marks.mkdir()
    on_host = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
    node = {"path": "/dev/my-zero", "hostPath": "/dev/zero"}
    numbered = {"path": "/dev/numbered", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 7}
    mount = {"hostPath": str(marks), "containerPath": "/marks", "options": ["ro", "nosuid", "noexec", "bind"]}
    devices: dict[str, dict[str, Any]] = {
        "z": {"deviceNodes": [node, numbered]},
        "files": {"mounts": [mount], "additionalGids": [4321]},
        "hooked": {
            "hooks": [hook(when, f'cat > {marks}/{when}; echo "$FROM" >> {marks}/env') for when in on_host]
            + [hook("startContainer", "echo ran > /from-inside")]
        },
        "failing": {"hooks": [hook("createContainer", "exit 3")]},
        "wrong": {"hooks": [hook("never", "true")]},
        "network": {"netDevices": [{"hostInterfaceName": "eth9", "name": "eth1"}]},
    }
    described = {
        "cdiVersion": "1.1.0",
        "kind": "vendor.example/dev",
        "containerEdits": {"env": ["VENDOR=here"]},
        "devices": [{"name": name, "containerEdits": edits} for name, edits in devices.items()],
    }
    (tmp_path / "vendor.json").write_text(json.dumps(described))
    annotations = {f"org.mobyproject.buildkit.device.{name}": value for name, value in _OPEN.items()}
    anyones = {"name": "one", "annotations": annotations, "containerEdits": {"env": ["VENDOR=here"]}}
    described = {"cdiVersion": "1.1.0", "kind": "open.example/dev", "devices": [anyones]}
    (tmp_path / "open.json").write_text(json.dumps(described))
    havred.stop()
    havred.extra += ["--cdi-spec-dir", str(tmp_path)]
    havred.start()
    yield marks
    havred.stop()
    del havred.extra[-2:]
    havred.start()


def run(engine: Engine, device: str, script: str, *options: str) -> list[str]:
    device = f"vendor.example/dev={device}"
    return engine.out(*OPTIONS, *options, "--device", device, "busybox", "sh", "-c", script).splitlines()


def refused(engine: Engine, device: str) -> str:
    return engine.docker(*OPTIONS, "--device", f"vendor.example/dev={device}", "busybox", "true", check=125).stderr


def test_devices_by_cdi_name(havred: Engine, marks: Path) -> None:
    script = "head -c 3 /dev/my-zero | od -An -tx1; echo $VENDOR; ls -ln /dev/numbered | tr -s ' '"
    zeros, variable, numbered = run(havred, "z", script)
    assert (zeros.split(), variable) == (["00", "00", "00"], "here")
    assert numbered.startswith("crw-r----- 1 7 0 1, 3 ")
    groups, mounted = run(havred, "files", "id -G; grep ' /marks ' /proc/mounts")
    assert groups == "0 4321"
    assert {"ro", "nosuid", "noexec"} <= set(mounted.split()[3].split(","))
    assert "unresolvable CDI devices vendor.example/dev=none" in refused(havred, "none")
    assert "invalid hook 'never'" in refused(havred, "wrong")
    assert "netDevices are not supported" in refused(havred, "network")
    assert havred.out("info", "-f", "{{json .CDISpecDirs}}") == json.dumps([str(marks.parent)])


def test_devices_of_a_step(havred: Engine, marks: Path, tmp_path: Path) -> None:
    kind = "vendor.example/dev"
    steps = f"--device={kind}=z --device={kind}=files,required --device={kind}=missing"
    context = write_context(
        tmp_path / "c",
        f"FROM busybox\nRUN --network=none {steps} head -c 3 /dev/my-zero | od -An -tx1 > /told"
        " && ls -d /marks >> /told && echo $VENDOR $(id -G) >> /told\n",
    )
    for client in (havred.havre, havred.docker):
        grants = ["--allow", "device"] if client == havred.havre else []
        told = client("build", "-t", "devices:1", *grants, str(context), check=0 if grants else 1).stderr
        if not grants:  # buildx 0.13 cannot grant devices
            assert f"devices {kind}=z, {kind}=files are requested by the build but not allowed" in told
    said = havred.out("run", "--rm", "--network", "none", "devices:1", "cat", "/told").split()
    assert said == ["00", "00", "00", "/marks", "here", "0", "4321"]
    havred.out("rmi", "devices:1")


def test_devices_that_a_step_may_not_have(havred: Engine, marks: Path, tmp_path: Path) -> None:
    kind = "vendor.example/dev"

    def build(flags: str, *grants: str, check: int = 0) -> str:
        context = write_context(tmp_path / "c", f"FROM busybox\nRUN --network=none {flags} echo vendor: $VENDOR\n")
        done = havred.havre("build", "--no-cache", "--progress=plain", *grants, str(context), check=check)
        return done.stdout + done.stderr

    assert "vendor: here" in build("--device=zero,required", "--allow", f"device={kind}=z,alias=zero")
    assert "vendor:\n" in build(f"--device={kind}=missing")
    told = build(f"--device={kind}=missing,required", "--allow", "device", check=1)
    assert f'required device "{kind}=missing" is not registered' in told
    told = build(f"--device={kind}=z", "--allow", f"device={kind}=files", check=1)
    assert f"device {kind}=z is requested by the build but not allowed" in told
    assert "vendor: here" in build("--device=open-to-all,required")
    havred.docker("image", "prune", "-f")


def test_hooks_run_with_the_container(havred: Engine, marks: Path) -> None:
    states = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
    for runtime in ("crun", "runc"):
        assert run(havred, "hooked", "cat /from-inside", "--runtime", runtime) == ["ran"]
        assert {path.name for path in marks.iterdir()} == {*states, "env"}
        seen = {name: json.loads((marks / name).read_text()) for name in states}
        assert len({state["id"] for state in seen.values()}) == 1
        assert seen["createRuntime"]["pid"] > 0
        assert (marks / "env").read_text() == "the hook\n" * 5
        for mark in marks.iterdir():
            mark.unlink()
    assert "error executing hook" in refused(havred, "failing")
    assert havred.out("ps", "-aq") == ""


def test_hooks_of_a_container_that_outlives_its_daemon(havred: Engine, marks: Path) -> None:
    options = ("--device", "vendor.example/dev=hooked", "--name", "hooked")
    havred.out("run", "-d", *options, "--network", "none", "busybox", "sleep", "1000")
    pid = int(havred.out("inspect", "-f", "{{.State.Pid}}", "hooked"))
    havred.stop(signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    assert not (marks / "poststop").exists()
    havred.start()
    until(lambda: (marks / "poststop").exists(), "the hook after the end")
    havred.out("rm", "hooked")

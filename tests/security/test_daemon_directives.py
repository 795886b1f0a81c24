"""Directives of the daemon that confine every container, on both engines; and the daemon that cannot obey ends."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.building import write_context
from support.engines import HAVRED, Dockerd, Engine, Havred, serving

_PROFILE = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["chmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO"}],
}
_CHMOD = "chmod 600 /etc/passwd && echo done"


@pytest.fixture(scope="module", params=[Havred, Dockerd])
def confined(
    request: pytest.FixtureRequest, archive: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    """An engine whose directives confine its containers."""
    profile = tmp_path_factory.mktemp("profile") / "profile.json"
    profile.write_text(json.dumps(_PROFILE))
    flags = ("--no-new-privileges", "--default-ipc-mode=shareable", "--default-cgroupns-mode=private")
    with serving(request.param([*flags, f"--seccomp-profile={profile}"]), archive) as engine:
        yield engine


def _shell(engine: Engine, script: str, *options: str) -> str:
    return engine.docker("run", "--rm", *options, "busybox", "sh", "-c", f"{script}; true", check=0).stdout.strip()


def test_the_seccomp_profile_is_that_of_every_container(confined: Engine) -> None:
    assert _shell(confined, _CHMOD) == ""
    for option in ("seccomp=unconfined", "seccomp=builtin"):
        assert _shell(confined, _CHMOD, "--security-opt", option) == "done"
    assert _shell(confined, _CHMOD, "--privileged") == "done"


def test_no_new_privileges_are_there_unless_asked_for(confined: Engine) -> None:
    script = "grep NoNewPrivs /proc/self/status | tr -dc 01"
    assert _shell(confined, script) == "1"
    assert _shell(confined, script, "--privileged") == "1"
    assert _shell(confined, script, "--security-opt", "no-new-privileges=false") == "0"
    id = confined.out("run", "-d", "busybox", "sleep", "1000")
    assert confined.out("exec", id, "sh", "-c", script) == "1"
    confined.docker("rm", "-f", id, check=0)


def test_namespaces_are_the_daemons_defaults(confined: Engine) -> None:
    modes = "{{.HostConfig.IpcMode}} {{.HostConfig.CgroupnsMode}}"
    unified = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    for options, shown in (
        ((), "shareable private"),
        (("--ipc", "private", "--cgroupns", "host"), "private host"),
        (("--privileged",), f"shareable {'private' if unified else 'host'}"),
    ):
        id = confined.out("create", *options, "busybox", "true")
        assert confined.out("inspect", "-f", modes, id) == shown
        confined.docker("rm", id, check=0)


def test_info_tells_of_them(confined: Engine) -> None:
    info = json.loads(confined.out("info", "-f", "{{json .}}"))
    path = confined.extra[-1].partition("=")[2]
    assert f"name=seccomp,profile={path}" in info["SecurityOptions"]
    assert "name=no-new-privileges" in info["SecurityOptions"]
    assert "WARNING: daemon is not using the default seccomp profile" in info["Warnings"]


def test_builds_have_the_profile_too(confined: Engine, tmp_path: Path) -> None:
    context = write_context(tmp_path / "c", "FROM busybox\nRUN chmod 600 /etc/passwd\n")
    refused = confined.name == "havre"  # dockerd's BuildKit knows only its own profile
    done = confined.docker("build", str(context), check=1 if refused else 0)
    assert ("Operation not permitted" in done.stderr) == refused


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--seccomp-profile=/nonexistent.json", "seccomp-profile: opening seccomp profile (/nonexistent.json) failed"),
        ("--selinux-enabled", "selinux-enabled: True is not supported"),
        ("--default-ipc-mode=host", 'IPC mode "host" is not supported as default value'),
        ("--default-cgroupns-mode=x", "default cgroup namespace mode (x) is invalid"),
        ("--init-path=/nonexistent", "init-path: /nonexistent is no program"),
    ],
)
def test_a_daemon_that_cannot_obey_ends(tmp_path: Path, flag: str, said: str) -> None:
    (tmp_path / "daemon.json").write_text("{}")
    places = [f"--{name}={tmp_path / name}" for name in ("data-root", "exec-root", "pidfile")]
    command = [str(HAVRED), *places, f"--config-file={tmp_path}/daemon.json", "-H", f"unix://{tmp_path}/s", flag]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert said in done.stderr


def test_a_configuration_is_only_checked(tmp_path: Path) -> None:
    (tmp_path / "daemon.json").write_text('{"no-new-privileges": true}')
    for flag, code, said in (("--debug", 0, "configuration OK"), ("--seccomp-profile=/nonexistent", 1, "failed")):
        command = [str(HAVRED), "--validate", f"--config-file={tmp_path}/daemon.json", flag]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert (done.returncode, said in done.stderr) == (code, True)

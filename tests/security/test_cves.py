"""What broke other engines, tried on ours: one test for each flaw, named after it.

The layers, tars, registries and networks have their own tests of this kind beside their rooms; here are those that a
user reaches through the API.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from support.engines import Engine
from support.images import import_busybox
from support.raw import ask
from support.waiting import until


def test_cve_2019_5736_runtime_binary_cannot_be_overwritten(havred: Engine) -> None:
    binaries = [Path(path) for name in ("crun", "runc", "conmon") if (path := shutil.which(name))]
    before = [hashlib.sha256(binary.read_bytes()).hexdigest() for binary in binaries]
    havred.out("run", "-d", "--name", "evil", "busybox", "sleep", "1000")
    script = "cat /bin/busybox > /proc/self/exe; for p in /proc/[0-9]*; do echo x > $p/exe; done"
    havred.docker("exec", "evil", "sh", "-c", script)
    havred.docker("exec", "evil", "/proc/self/exe")
    havred.docker("rm", "-f", "evil", check=0)
    assert [hashlib.sha256(binary.read_bytes()).hexdigest() for binary in binaries] == before


def test_cve_2019_5736_the_runtime_in_a_container_is_not_the_next_ones(havred: Engine) -> None:
    """crun runs where it can be neither written nor made inexecutable, or from a copy that no other start uses."""
    libraries = [f"--volume={path}:{path}:ro" for path in ("/lib", "/lib64")]
    havred.out("run", "-d", "--name", "evil", *libraries, "busybox", "sleep", "1000")
    havred.out("exec", "evil", "mkfifo", "/config")  # which crun waits for
    havred.out("exec", "-d", "evil", "/proc/self/exe", "run", "--config=/config", "x")
    commands = ("exec", "evil", "sh", "-c", "cat /proc/[2-9]*/cmdline")
    until(lambda: "--config=/config" in havred.out(*commands), "crun in the container")
    havred.docker("exec", "evil", "sh", "-c", "chmod 0 /proc/[2-9]*/exe")
    assert havred.out("run", "--rm", "busybox", "echo", "well") == "well"
    havred.docker("rm", "-f", "evil", check=0)


def test_cve_2019_16884_nothing_is_mounted_over_proc(havred: Engine, tmp_path: Path) -> None:
    for target in ("/proc", "/proc/self", "/proc/sys"):
        done = havred.docker("run", "--rm", "-v", f"{tmp_path}:{target}", "busybox", "true")
        assert done.returncode != 0, target


def test_cve_2019_19921_proc_as_a_link_in_the_image(havred: Engine) -> None:
    import_busybox(havred, "link-proc", links={"proc": "/tmp", "sys": "/tmp"})
    done = havred.docker("run", "--rm", "link-proc", "true")
    assert done.returncode != 0
    havred.out("rmi", "link-proc")


def test_cve_2024_21626_workdir_in_a_descriptor(havred: Engine) -> None:
    havred.out("run", "-d", "--name", "target", "busybox", "sleep", "1000")
    for number in range(3, 12):
        path = f"/proc/self/fd/{number}"
        assert havred.docker("run", "--rm", "-w", path, "busybox", "cat", "../../../etc/hostname").returncode != 0
        assert havred.docker("exec", "-w", path, "target", "pwd").returncode != 0
    havred.docker("rm", "-f", "target", check=0)


@pytest.mark.parametrize("path", ["dev", "dev/null", "dev/console", "dev/pts", "dev/shm"])
def test_cve_2025_31133_devices_as_links_in_the_image(havred: Engine, path: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("whole")
    import_busybox(havred, "link-dev", links={path: str(victim)})
    done = havred.docker("run", "--rm", "link-dev", "sh", "-c", "echo gone > /dev/null; echo fine")
    assert victim.read_text() == "whole"
    if done.returncode == 0:
        assert done.stdout == "fine\n"
    havred.out("rmi", "link-dev")


def test_cve_2021_30465_target_swapped_while_starting(havred: Engine, tmp_path: Path) -> None:
    """A container swaps a folder of a shared volume for a link while others mount below it."""
    secret = tmp_path / "host-only"
    secret.mkdir()
    swapper = "mkdir -p /v/a; while :; do mv /v/a /v/b; ln -s / /v/a; rm /v/a; mv /v/b /v/a; done 2>/dev/null"
    havred.out("run", "-d", "--name", "swapper", "-v", "shared:/v", "busybox", "sh", "-c", swapper)
    before = set(Path("/proc/self/mountinfo").read_text().splitlines())
    for _ in range(25):
        havred.docker("run", "--rm", "-v", "shared:/v", "-v", f"{secret}:/v/a/etc", "busybox", "true")
    havred.docker("rm", "-f", "swapper", check=0)
    havred.out("volume", "rm", "shared")
    strange = set(Path("/proc/self/mountinfo").read_text().splitlines()) - before
    assert [line for line in strange if "host-only" in line] == []


def test_cve_2022_24769_no_inheritable_capabilities(havred: Engine) -> None:
    havred.out("run", "-d", "--name", "caps", "busybox", "sleep", "1000")
    for user in ("0", "1000"):
        assert "0000000000000000" in havred.out("exec", "-u", user, "caps", "grep", "CapInh", "/proc/self/status")
        assert "0000000000000000" in havred.out(
            "run", "--rm", "-u", user, "busybox", "grep", "CapInh", "/proc/self/status"
        )
    havred.docker("rm", "-f", "caps", check=0)


def test_cve_2026_30892_exec_keeps_its_user(havred: Engine) -> None:
    havred.out("run", "-d", "--name", "users", "busybox", "sleep", "1000")
    assert havred.out("exec", "-u", "1", "users", "id", "-u") == "1"
    assert havred.out("exec", "-u", "1:7", "users", "sh", "-c", "id -u; id -g; id -G") == "1\n7\n7"
    havred.docker("rm", "-f", "users", check=0)


def test_cve_2022_36109_supplementary_groups(havred: Engine) -> None:
    groups = havred.out("run", "--rm", "-u", "1000:1000", "--group-add", "5", "busybox", "id", "-G").split()
    assert groups == ["1000", "5"]


def test_cve_2021_41091_data_root_is_closed_to_users(havred: Engine) -> None:
    os.chmod(havred.root, 0o755)
    for folder in ("data/volumes", "data/snapshots", "data/layers", "data/blobs", "data/containers"):
        done = subprocess.run(
            ["ls", str(havred.root / folder)],
            user=65534,
            group=65534,
            extra_groups=[],
            capture_output=True,
            check=False,
        )
        assert done.returncode != 0, folder
        assert b"ermission denied" in done.stderr, folder


def test_cve_2020_15257_no_abstract_sockets(havred: Engine) -> None:
    havred.out("run", "-d", "--name", "held", "--network", "host", "busybox", "sleep", "1000")
    sockets = havred.out("exec", "held", "cat", "/proc/net/unix").splitlines()
    assert [line for line in sockets if "@" in line and "havre" in line] == []
    havred.docker("rm", "-f", "held", check=0)


@pytest.mark.parametrize("volume", ["/../../etc", "../x", "/a/../../../etc"])
def test_cve_2022_23648_volume_outside_the_root(havred: Engine, volume: str) -> None:
    reply = ask(
        havred.socket, "POST", "/containers/create", {"Image": "busybox", "Cmd": ["ls", "/"], "Volumes": {volume: {}}}
    )
    if reply.status == 201:  # cleaned to a path inside the root, as docker does
        havred.docker("start", "-a", reply.json["Id"])
        (shown,) = json.loads(havred.out("inspect", reply.json["Id"]))
        for mount in shown["Mounts"]:
            source = Path(mount["Source"])
            assert str(source).startswith(str(havred.root))
            assert not (source / "hostname").exists() or source.stat().st_ino != Path("/etc").stat().st_ino
        havred.docker("rm", "-f", "-v", reply.json["Id"], check=0)
    else:
        assert reply.status == 400


@pytest.mark.parametrize("user", ["4294967296", "-1", "0x0", "99999999999999999999"])
def test_cve_2024_40635_user_that_overflows(havred: Engine, user: str) -> None:
    assert havred.docker("run", "--rm", f"--user={user}", "busybox", "id", "-u").returncode != 0
    assert havred.out("ps", "-aq") == ""


def test_cve_2024_3056_slow_reader_costs_no_memory(havred: Engine) -> None:
    def resident_mb() -> float:
        return int(Path(f"/proc/{havred.pid}/statm").read_text().split()[1]) * 4096 / 1e6

    before = resident_mb()
    script = "head -c 1000000000 /dev/zero"
    reader = subprocess.Popen(
        ["docker", "run", "--rm", "--name", "flood", "busybox", "sh", "-c", script],
        env=havred.env,
        stdout=subprocess.PIPE,
    )
    assert reader.stdout is not None
    assert len(reader.stdout.read(1000)) == 1000
    until(lambda: havred.out("ps", "-q", "--filter", "name=flood"), "the container")
    assert resident_mb() - before < 60
    havred.docker("rm", "-f", "flood", check=0)
    reader.stdout.close()
    reader.wait(15)
    assert resident_mb() - before < 60


def test_cve_2024_41110_empty_and_huge_bodies(havred: Engine) -> None:
    assert ask(havred.socket, "POST", "/containers/create", b"").status == 400
    huge = b'{"Image":"busybox","Cmd":["' + b"x" * 20_000_000 + b'"]}'
    assert ask(havred.socket, "POST", "/containers/create", huge).status in {400, 413}
    assert havred.out("ps", "-aq") == ""


def test_cve_2026_53488_labels_never_control_the_engine(havred: Engine, tmp_path: Path) -> None:
    made = tmp_path / "made"
    label = {
        "io.podman.annotations.autoremove": "TRUE",
        "run.oci.hooks.stderr": str(made),
        "havre.command": f"touch {made}",
    }
    options = [f"--label={key}={value}" for key, value in label.items()]
    havred.docker("run", "--rm", *options, "busybox", "true", check=0)
    assert not made.exists()


def test_socket_is_closed_to_users(havred: Engine) -> None:
    assert havred.socket.stat().st_mode & 0o777 == 0o660

"""The host reboots; the OCI runtime or conmon is killed at its steps. Afterwards everything can be listed and removed.

A reboot is simulated: no daemon, no processes, no mounts, no network, and an empty run directory.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from support.engines import Engine
from support.leaks import mounts_below
from support.processes import kill, named, processes_of, read
from support.waiting import until

SLEEP = ("busybox", "sleep", "1000")


def state(engine: Engine, name: str) -> str:
    return engine.out("inspect", "--format", "{{.State.Status}}", name)


def children_of(pids: set[int]) -> set[int]:
    found = set()
    for pid in pids:
        found |= {int(child) for child in read(Path(f"/proc/{pid}/task/{pid}/children")).split()}
    return found


def reboot(engine: Engine) -> None:
    """What is left of a host after a reboot: the disk."""
    engine.stop(signal.SIGKILL)
    holders = processes_of(engine)
    for pid in children_of(holders) | holders:
        kill(pid)
    until(lambda: not processes_of(engine), "the end of all processes")
    for point in sorted(mounts_below(str(engine.root)), reverse=True):
        subprocess.run(["umount", point], check=True)
    links = subprocess.run(["ip", "-n", engine.netns, "-br", "link"], capture_output=True, check=True, text=True).stdout
    for link in (line.split()[0].partition("@")[0] for line in links.splitlines()):
        if link != "lo":
            subprocess.run(["ip", "-n", engine.netns, "link", "del", link], check=False, capture_output=True)
    subprocess.run([*engine.inside, "nft", "flush", "ruleset"], check=True)
    for group in list(Path("/sys/fs/cgroup").glob(f"*/havre/{engine.root.name}/*")):
        if group.is_dir():
            group.rmdir()
    shutil.rmtree(engine.root / "run")
    engine.start()


def test_a_reboot_brings_back_what_wants_to_run(havred: Engine) -> None:
    havred.out("run", "-d", "--name", "always", "--restart", "always", "-p", "18500:80", "-v", "kept:/v", *SLEEP)
    havred.out("exec", "always", "touch", "/v/volume", "/own")
    havred.out("run", "-d", "--name", "unless", "--restart", "unless-stopped", *SLEEP)
    havred.out("run", "-d", "--name", "stopped", "--restart", "unless-stopped", *SLEEP)
    havred.out("run", "-d", "--name", "plain", *SLEEP)
    havred.out("run", "-d", "--rm", "--name", "fleeting", *SLEEP)
    havred.out("create", "--name", "made", "--restart", "always", *SLEEP)
    havred.docker("stop", "-t", "0", "stopped", check=0)
    reboot(havred)
    until(lambda: state(havred, "always") == state(havred, "unless") == "running", "the restarts")
    assert [state(havred, name) for name in ("stopped", "plain", "made")] == ["exited", "exited", "created"]
    until(lambda: havred.docker("inspect", "fleeting").returncode == 1, "the removal of --rm")
    assert havred.out("exec", "always", "ls", "/own", "/v/volume").split() == ["/own", "/v/volume"]
    assert havred.out("port", "always").splitlines()[0] == "80/tcp -> 0.0.0.0:18500"
    havred.docker("start", "plain", check=0)
    havred.docker("rm", "-f", "-v", "always", "unless", "stopped", "plain", "made", check=0)
    havred.out("volume", "rm", "kept")


@pytest.mark.parametrize("victim", ["conmon", "crun"])
def test_the_holder_or_the_runtime_is_killed_at_any_moment(havred: Engine, victim: str) -> None:
    """Killed as soon as they show up, at whatever step they are then."""
    done = threading.Event()

    def hunt() -> None:
        while not done.is_set():
            for pid in named(processes_of(havred), victim):
                kill(pid)

    hunter = threading.Thread(target=hunt)
    hunter.start()
    try:
        for _ in range(8):
            havred.docker("run", "--name", "prey", "busybox", "true", timeout_s=30)
            havred.docker("rm", "-f", "prey", timeout_s=30)
    finally:
        done.set()
        hunter.join()
    for identifier in havred.out("ps", "-aq").split():
        havred.docker("rm", "-f", identifier, check=0)
    assert havred.out("run", "--rm", "--name", "prey", "busybox", "echo", "well") == "well"


def test_a_killed_daemon_finds_each_state_again(havred: Engine) -> None:
    havred.out("create", "--name", "created", *SLEEP)
    havred.out("run", "-d", "--name", "running", *SLEEP)
    havred.out("run", "-d", "--name", "paused", *SLEEP)
    havred.docker("pause", "paused", check=0)
    havred.docker("run", "--name", "exited", "busybox", "sh", "-c", "exit 3", check=3)
    havred.out("run", "-d", "--name", "restarting", "--restart", "always", "busybox", "false")
    # The back-off doubles: at the fifth it is long enough to be seen.
    counted = ("inspect", "-f", "{{.State.Status}} {{.RestartCount}}", "restarting")
    until(lambda: havred.out(*counted) >= "restarting 5", "the fifth restart")
    havred.stop(signal.SIGKILL)
    havred.start()
    assert state(havred, "restarting") in ("running", "restarting")
    assert [state(havred, name) for name in ("created", "running", "paused", "exited")] == [
        *("created", "running", "paused", "exited")
    ]
    assert havred.out("inspect", "-f", "{{.State.ExitCode}}", "exited") == "3"
    havred.docker("unpause", "paused", check=0)
    assert havred.out("exec", "paused", "echo", "thawed") == "thawed"
    havred.docker("start", "created", check=0)
    havred.docker("rm", "-f", "created", "running", "paused", "exited", "restarting", check=0)

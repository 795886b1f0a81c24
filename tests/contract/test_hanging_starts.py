"""Starts that hang: images whose files block who opens them, OCI runtimes that never come back."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.engines import Engine, Havred, serving
from support.images import import_busybox
from support.raw import ask
from support.waiting import until

FIFO = "is a fifo, a regular file is expected"


@pytest.mark.parametrize("path", ["etc/passwd", "etc/group"])
def test_accounts_that_are_a_fifo_are_refused(havred: Engine, path: str) -> None:
    import_busybox(havred, "fifo", fifos=[path])
    refused = havred.docker("run", "--name", "blocked", "fifo", "sh", "-c", "echo never", check=125)
    assert f"the container's /{path} {FIFO}" in refused.stderr
    havred.out("rm", "blocked")
    built = havred.havre("build", "-t", "x", "-", stdin="FROM fifo\nRUN true\n", check=1)
    assert FIFO in built.stderr
    havred.out("rmi", "fifo")


def test_other_files_that_are_fifos_are_covered_by_the_engine(havred: Engine) -> None:
    for path in ("etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab"):
        import_busybox(havred, "fifo", fifos=[path])
        assert havred.out("run", "--rm", "fifo", "sh", "-c", "echo ran") == "ran"
        havred.out("rmi", "fifo")


def test_an_exec_where_accounts_have_become_a_fifo(havred: Engine) -> None:
    havred.out("run", "-d", "--name", "turned", "busybox", "sh", "-c", "mkfifo /f; mv -f /f /etc/passwd; sleep 1000")
    until(lambda: havred.docker("exec", "turned", "true").returncode == 126, "the fifo to be there")
    for options in ([], ["-u", "root"]):
        refused = havred.docker("exec", *options, "turned", "true", check=126)
        assert FIFO in refused.stdout + refused.stderr
    havred.out("rm", "-f", "turned")


@pytest.fixture(scope="module")
def hanging(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine with an OCI runtime that hangs when it is to create something; 1 s to stop."""
    program = tmp_path_factory.mktemp("runtime") / "hangs"
    program.write_text('#!/bin/sh\ncase "$*" in *--bundle*) sleep 1000;; *) exec crun "$@";; esac\n')
    program.chmod(0o755)
    options = ["--add-runtime", f"hangs={program}", "--shutdown-timeout", "1"]
    with serving(Havred(options), archive) as engine:
        yield engine


def began(engine: Engine, container: str) -> None:
    """Wait until its OCI runtime has been started."""
    until((engine.root / "run/containers" / container / "conmon.log").exists, "conmon to start")


@pytest.mark.parametrize("options", [[], ["--rm"]])
def test_a_start_that_hangs_is_broken_off_by_a_removal(hanging: Engine, options: list[str]) -> None:
    container = hanging.out("create", *options, "--runtime", "hangs", "-p", "80", "busybox", "true")
    with ThreadPoolExecutor() as threads:
        starting = threads.submit(hanging.docker, "start", container)
        began(hanging, container)
        begun = time.monotonic()
        hanging.out("rm", "-f", container)
        assert time.monotonic() - begun < 20
        assert "was removed while it was being started" in starting.result().stderr
    assert hanging.out("ps", "-aq") == ""
    assert not list((hanging.root / "run/containers").iterdir())


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGPWR])
def test_a_daemon_stops_in_time_with_starts_that_hang(hanging: Engine, how: int) -> None:
    containers = [hanging.out("create", "--runtime", "hangs", "busybox", "true") for _ in range(3)]
    with ThreadPoolExecutor() as threads:
        for container in containers:
            threads.submit(ask, hanging.socket, "POST", f"/containers/{container}/start")
        for container in containers:
            began(hanging, container)
        hanging.stop(how)
    assert "stopping, which takes 16 s at most" in hanging.log.read_text()
    assert not (hanging.root / "pid").exists()
    hanging.start()
    assert hanging.out("ps", "-aq", "--filter", "status=created").split()
    hanging.out("rm", *containers)

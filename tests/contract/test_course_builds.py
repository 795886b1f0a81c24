"""What is taught first: an image with a server installed by apt, and a container that supervises two processes."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.aptrepo import apt_base
from support.building import write_context
from support.engines import Engine
from support.waiting import until

PACKAGE = "nginx-light"

_SERVER = f"""
FROM course:base
LABEL maintainer="students"
COPY packages /packages
RUN echo 'deb [trusted=yes] file:/packages ./' > /etc/apt/sources.list && rm -rf /etc/apt/sources.list.d/*
RUN apt update && apt install -y --no-install-recommends {PACKAGE}
CMD ["nginx", "-g", "daemon off;"]
"""

_WRAPPER = """#!/bin/bash
# Start both, and end as soon as one of them ends.
./first &
./second &
wait -n
exit $?
"""

_SUPERVISED = """
FROM course:base
COPY --chmod=755 first second wrapper /srv/
WORKDIR /srv
CMD ["./wrapper"]
"""


@pytest.fixture
def base(havred: Engine) -> Iterator[Path]:
    """The packages beside the image course:base, a Debian with apt."""
    tar, packages = apt_base(PACKAGE)
    havred.docker("import", str(tar), "course:base", check=0, timeout_s=300)
    yield packages
    havred.docker("rmi", "-f", "course:base", check=0)


def test_a_server_installed_by_apt(havred: Engine, base: Path, tmp_path: Path) -> None:
    context = write_context(tmp_path / "c", _SERVER)
    shutil.copytree(base, context / "packages")
    havred.havre("build", "-t", "course:web", str(context), check=0, timeout_s=300)
    assert havred.out("image", "inspect", "-f", "{{.Config.Labels.maintainer}}", "course:web") == "students"
    havred.out("run", "-d", "--name", "course-web", "-p", "18460:80", "course:web")
    fetch = [*havred.inside, "curl", "-s", "-m", "5", "http://127.0.0.1:18460/"]
    try:
        until(lambda: b"Welcome to nginx" in subprocess.run(fetch, capture_output=True, check=False).stdout, "nginx")
        again = havred.havre("build", "--progress", "plain", str(context), check=0)
        assert again.stderr.count(" CACHED\n") == 4
    finally:
        havred.docker("rm", "-f", "course-web", check=0)
        havred.docker("rmi", "course:web", check=0)


def test_two_processes_and_a_wrapper(havred: Engine, base: Path, tmp_path: Path) -> None:
    files = {
        "first": "#!/bin/bash\nwhile true; do echo first; sleep 0.2; done\n",
        "second": "#!/bin/bash\necho second\nuntil test -e /stop; do sleep 0.1; done\nexit 7\n",
        "wrapper": _WRAPPER,
    }
    context = write_context(tmp_path / "c", _SUPERVISED, files)
    havred.havre("build", "-q", "-t", "course:two", str(context), check=0)
    havred.out("run", "-d", "--name", "course-two", "course:two")
    try:
        until(lambda: {"first", "second"} <= set(havred.out("logs", "course-two").splitlines()), "both processes")
        havred.out("exec", "course-two", "touch", "/stop")
        assert havred.out("wait", "course-two") == "7"
    finally:
        havred.docker("rm", "-f", "course-two", check=0)
        havred.docker("rmi", "course:two", check=0)

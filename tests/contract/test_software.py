"""Real software: a Debian image made from Debian's packages, with bash, python3 and nginx."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from support.engines import Engine
from support.images import debian_tree
from support.waiting import until

IMAGE = "debian:test"


@pytest.fixture(scope="module")
def imported() -> Iterator[set[Engine]]:
    """The engines that have the image."""
    engines: set[Engine] = set()
    yield engines
    for engine in engines:
        engine.docker("rmi", "-f", IMAGE, check=0)


@pytest.fixture
def debian(engine: Engine, imported: set[Engine]) -> str:
    """The name of a Debian image on this engine."""
    if engine not in imported:
        engine.docker("import", "-c", 'CMD ["bash"]', str(debian_tree()), IMAGE, check=0, timeout_s=300)
        imported.add(engine)
    return IMAGE


def test_nginx_serves_a_page(engine: Engine, debian: str) -> None:
    command = ("nginx", "-g", "daemon off;")
    engine.out("run", "-d", "--name", "web", "-p", "18200:80", debian, *command)
    fetch = [*engine.inside, "curl", "-s", "-m", "5", "http://127.0.0.1:18200/"]
    try:
        until(lambda: b"Welcome to nginx" in subprocess.run(fetch, capture_output=True, check=False).stdout, "nginx")
    finally:
        engine.docker("rm", "-f", "web", check=0)


def test_bash_and_python(engine: Engine, debian: str) -> None:
    assert engine.out("run", "--rm", debian, "bash", "-c", 'a=(1 2 3); echo "${#a[@]}"') == "3"
    script = "import os, sys; print(sys.version_info[0], os.getpid(), os.getuid())"
    assert engine.out("run", "--rm", debian, "python3", "-c", script) == "3 1 0"
    assert "trixie" in engine.out("run", "--rm", debian, "cat", "/etc/os-release")


def test_files_are_as_packaged(engine: Engine, debian: str) -> None:
    modes = engine.out("run", "--rm", debian, "stat", "-c", "%a %U:%G %n", "/tmp", "/etc/shadow", "/usr/bin/passwd")
    assert modes.splitlines() == [
        "1777 root:root /tmp",
        "640 root:shadow /etc/shadow",
        "4755 root:root /usr/bin/passwd",
    ]


def test_package_database_can_be_changed(engine: Engine, debian: str) -> None:
    script = "dpkg --purge --force-all nginx-light >/dev/null 2>&1; dpkg -l nginx-light 2>&1 | tail -1"
    assert "nginx-light" in engine.out("run", "--rm", debian, "bash", "-c", script)

"""The emulated host, booted once for all tests of this folder; a newcomer's two commands run in it first."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from support.engines import ROOT
from support.machine import EMULATOR, Machine, Ran, image


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    """A Debian with systemd as PID 1, cgroup v2 and AppArmor. It has the checkout, and no daemon runs."""
    if shutil.which(EMULATOR) is None:
        pytest.skip(f"{EMULATOR} cannot be installed here: no emulated host")
    with Machine.booted(image()) as booted:
        yield booted


@pytest.fixture(scope="session")
def first_run(machine: Machine) -> Ran:
    """How `make run` ended, a newcomer's first command."""
    return machine.run(f"cd {ROOT}; make run", 300)


@pytest.fixture(scope="session")
def installation(machine: Machine, first_run: Ran) -> Ran:
    """How `make install` ended, after `make run`."""
    return machine.run(f"cd {ROOT}; make install DOCKER_SOCKET=1", 300)


@pytest.fixture
def host(machine: Machine, installation: Ran) -> Iterator[Machine]:
    """The machine with havre installed. Containers, volumes and networks are removed after each test."""
    assert installation.code == 0, installation
    yield machine
    machine.out(
        "systemctl start havre.service; havre ps -aq | xargs -r havre rm -f >/dev/null\n"
        "havre volume prune -af >/dev/null; havre network prune -f >/dev/null"
    )

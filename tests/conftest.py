"""Fixtures of the whole suite: engines, and the leak check around every test that touches the kernel.

A test that takes `engine` runs on havre and on dockerd; one that takes `havred` on havre only.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from support import boxes
from support.composing import Both, living
from support.engines import Dockerd, Engine, Havred
from support.images import busybox_archive
from support.leaks import Kernel, Scope, assert_no_leak
from support.raw import ask

# Background jobs of a shell start with SIGINT ignored, which clients under test would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

_KERNEL_FOLDERS = {"kernel", "suites", "contract", "security", "faults"}


@pytest.fixture(autouse=True)
def leak_check(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Assert that the test leaves no kernel objects behind."""
    folder = request.path.relative_to(Path(__file__).parent).parts[0]
    if folder not in _KERNEL_FOLDERS:
        yield
        return
    names = {"engine", "havred"} & set(request.fixturenames)
    engine = request.getfixturevalue(names.pop()) if names else None
    scope = _scope(engine, tmp_path_factory)
    before = Kernel.look(scope)
    yield
    now = _scope(engine, tmp_path_factory)
    # A daemon that the test has restarted has other descriptors.
    assert_no_leak(before, now if now == scope else replace(now, daemon=None))


def _scope(engine: Engine | None, places: pytest.TempPathFactory) -> Scope:
    if engine is None:
        return Scope((f"{places.getbasetemp()}/", boxes.PLACE), cgroup=boxes.CGROUP)
    daemon = engine.pid if isinstance(engine, Havred) and engine.running else None
    return Scope((str(engine.root),), engine.cgroup, engine.netns, daemon)


def _engine(kind: type[Engine], archive: Path) -> Iterator[Engine]:
    engine = kind()
    try:
        engine.open()
        engine.docker("load", "-i", str(archive), check=0)
        # The first container on the host's network creates a mount that dockerd keeps.
        engine.docker("run", "--rm", "--network", "host", "busybox", "true", check=0)
        yield engine
    finally:
        engine.close()


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded busybox image as an archive for `docker load`."""
    return busybox_archive(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="session")
def _havre(archive: Path) -> Iterator[Engine]:
    yield from _engine(Havred, archive)


@pytest.fixture(scope="session")
def _dockerd(archive: Path) -> Iterator[Engine]:
    yield from _engine(Dockerd, archive)


def _for_one_test(engine: Engine, archive: Path) -> Iterator[Engine]:
    """Load the standard image for a test, and remove afterwards what the test has left."""
    if ask(engine.socket, "GET", "/images/busybox:latest/json").status == 404:
        engine.docker("load", "-i", str(archive), check=0)
    kept = engine.objects()
    yield engine
    if engine.running:
        engine.tidy(kept)


@pytest.fixture(params=["havre", "dockerd"])
def engine(request: pytest.FixtureRequest, archive: Path) -> Iterator[Engine]:
    """havre, then dockerd: the same test on both."""
    yield from _for_one_test(request.getfixturevalue(f"_{request.param}"), archive)


@pytest.fixture
def havred(_havre: Engine, archive: Path) -> Iterator[Engine]:
    """havre only."""
    yield from _for_one_test(_havre, archive)


@pytest.fixture
def project(engine: Engine, tmp_path: Path) -> Iterator[Both]:
    """A Compose project on havre, then on dockerd."""
    yield from living(Both(engine, tmp_path))


@pytest.fixture
def ours(havred: Engine, tmp_path: Path) -> Iterator[Both]:
    """A Compose project on havre."""
    yield from living(Both(havred, tmp_path))

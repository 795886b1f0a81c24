"""Fixtures of the whole suite: engines to drive, and the leak check around every test that touches the kernel.

Every expectation that takes `engine` is checked on havre and on dockerd; `havred` is our daemon alone.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from support.engines import Dockerd, Engine, Havred
from support.images import busybox_archive
from support.leaks import Kernel, Scope, assert_no_leak

_KERNEL_FOLDERS = {"kernel", "suites", "contract", "security", "faults"}


@pytest.fixture(autouse=True)
def leak_check(request: pytest.FixtureRequest) -> Iterator[None]:
    """The kernel holds nothing more after a test than before it."""
    folder = request.path.relative_to(Path(__file__).parent).parts[0]
    if folder not in _KERNEL_FOLDERS:
        yield
        return
    names = {"engine", "havred"} & set(request.fixturenames)
    engine = request.getfixturevalue(names.pop()) if names else None
    scope = Scope(engine.netns, str(engine.root), engine.cgroup) if engine else Scope()
    before = Kernel.look(scope)
    yield
    assert_no_leak(before, scope)


def _engine(kind: type[Engine], archive: Path) -> Iterator[Engine]:
    engine = kind()
    try:
        engine.open()
        engine.docker("load", "-i", str(archive), check=0)
        # The first container on the host's network makes a mount that dockerd keeps.
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


@pytest.fixture(params=["havre", "dockerd"])
def engine(request: pytest.FixtureRequest) -> Engine:
    """Our daemon, then Docker's: the same test on both."""
    return request.getfixturevalue(f"_{request.param}")  # type: ignore[no-any-return]


@pytest.fixture
def havred(_havre: Engine) -> Engine:
    """Our daemon alone, for what Docker's does not do."""
    return _havre

"""Fixtures of the whole suite: the leak check around every test that touches the kernel."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

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
    scope = Scope(engine.netns, str(engine.root)) if engine else Scope()
    before = Kernel.look(scope)
    yield
    assert_no_leak(before, scope)

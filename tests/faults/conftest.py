"""Fixtures of the tests that kill."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.engines import Engine, Havred, serving


@pytest.fixture
def havred(archive: Path) -> Iterator[Engine]:
    """A daemon of the test's own, to be killed at will."""
    with serving(Havred(), archive) as engine:
        yield engine

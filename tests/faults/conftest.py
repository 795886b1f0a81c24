"""Fixtures of the tests that kill."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.engines import Engine, Havred


@pytest.fixture
def havred(archive: Path) -> Iterator[Engine]:
    """A daemon of the test's own, to be killed at will."""
    engine = Havred()
    engine.open()
    engine.docker("load", "-i", str(archive), check=0)
    yield engine
    engine.close()

"""Sizes and durations of builds, as Go reads them."""

from __future__ import annotations

import time

import pytest

from havre.builds.cache import CacheRecord, plan_prune
from havre.dockerfile.mounts import parse_mount
from havre.errors import InvalidInput


@pytest.mark.parametrize(("text", "size"), [("64MiB", 64 << 20), ("1.5g", 3 << 29), ("100", 100), ("2kb", 2048)])
def test_size_of_a_tmpfs(text: str, size: int) -> None:
    assert parse_mount(f"type=tmpfs,target=/x,size={text}").size == size


@pytest.mark.parametrize(
    ("until", "gone"), [("500ms", {"old", "new"}), ("1h30m", {"old"}), ("48h", set()), ("4000000000", {"old", "new"})]
)
def test_age_of_cache_records(until: str, gone: set[str]) -> None:
    now = time.time()
    records = [CacheRecord(id, (), "", "", 0.0, now - age) for id, age in (("old", 7200), ("new", 60))]
    chosen = plan_prune(records, {"until": [until]}, all=True, keep_bytes=0, used=set())
    assert {record.id for record in chosen} == gone


def test_a_duration_without_its_unit_is_no_age() -> None:
    record = CacheRecord("old", (), "", "", 0.0, 1.0)
    with pytest.raises(InvalidInput, match="invalid filter 'until=1h5'"):
        plan_prune([record], {"until": ["1h5"]}, all=True, keep_bytes=0, used=set())

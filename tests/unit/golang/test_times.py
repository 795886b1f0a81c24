"""Times as Go writes them and Docker's clients send them."""

from __future__ import annotations

import pytest

from havre.golang.times import go_time, parse_civil, parse_time


@pytest.mark.parametrize(
    ("written", "parsed"),
    [("1970-01-01T00:00:00Z", (0, 0)), ("2026-11-24T12:53:06.059740070Z", (1795524786, 59740070)),
     ("2026-11-24T12:53:06.5+01:00", (1795521186, 500_000_000)), ("0001-01-01T00:00:00Z", (-62135596800, 0)),
     ("2024-02-29T23:59:59-05:30", (1709270999, 0))],
)  # fmt: skip
def test_times(written: str, parsed: tuple[int, int]) -> None:
    assert parse_time(written) == parsed


def test_go_prints_times_without_trailing_zeros() -> None:
    assert go_time(1795524786, 75_534_240, utc=True) == "2026-11-24 12:53:06.07553424 +0000 UTC"


@pytest.mark.parametrize(
    ("written", "parsed"),
    [("2006-01-02", (1136160000, 0, None)), ("2006-01-02Z", (1136160000, 0, 0)),
     ("2006-01-02-01:30", (1136160000, 0, -5400)), ("2006-01-02T15", (1136214000, 0, None)),
     ("2006-01-02T15:04+01:00", (1136214240, 0, 3600)), ("2006-01-02t15:04:05.25z", (1136214245, 250_000_000, 0)),
     ("2006-01-02T15:04:05.1234567899Z", (1136214245, 123_456_789, 0))],
)  # fmt: skip
def test_parts_of_times(written: str, parsed: tuple[int, int, int | None]) -> None:
    assert parse_civil(written) == parsed


@pytest.mark.parametrize(
    "text",
    ["", "2006", "2006-1-2", "2006-13-01", "2006-02-29", "2006-01-02 15:04", "2006-01-02T", "2006-01-02T24",
     "2006-01-02T1:2", "2006-01-02T15:04:60", "2006-01-02T15:04:05.", "2006-01-02T15:04:05.x", "2006-01-02T15.5",
     "2006-01-02T15:04+1:00", "2006-01-02T15:04+24:00", "2006-01-02x", "٢٠٠٦-01-02"],
)  # fmt: skip
def test_texts_that_are_no_times(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a|no such day"):
        parse_civil(text)


def test_a_time_needs_a_zone() -> None:
    with pytest.raises(ValueError, match="zone"):
        parse_time("2006-01-02T15:04:05")

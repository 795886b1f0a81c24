"""Sizes and durations, with the values and the words of go-units and of Go's time package."""

from __future__ import annotations

import pytest

from havre.golang.units import format_duration, parse_bool, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("32", 32), ("32b", 32), ("32B", 32), ("32k", 32 << 10), ("32kb", 32 << 10), ("32Kib", 32 << 10),
        ("32.5kB", 33280), ("1.5g", 3 << 29), ("64MiB", 64 << 20), ("32 kb", 32 << 10), ("0", 0), ("5tb", 5 << 40),
        ("1p", 1 << 50), ("32ib", 32),
    ],
)  # fmt: skip
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        *("", "zz", "k", "-32", "32mm", "32bb", "32 x", "32m b", " 32", "1_0k", "9e9p", ".5", "1.", "1.2.3", "٣"),
        *("9999p", "9" * 400),
    ],
)
def test_sizes_that_are_refused(text: str) -> None:
    with pytest.raises(ValueError) as refused:
        parse_size(text)
    assert str(refused.value) == f"invalid size: '{text}'"


@pytest.mark.parametrize(
    ("text", "duration_ns"),
    [
        ("0", 0), ("+0", 0), ("5s", 5 * 10**9), ("1h30m", 5400 * 10**9), ("1.5s", 1_500_000_000),
        ("-250ms", -250_000_000),
        (".5s", 500_000_000), ("1.s", 10**9), ("10µs", 10_000), ("10us", 10_000), ("3h4m5.678s", 11_045_678_000_000),
        ("0.5ms", 500_000), ("9223372036854775807ns", 2**63 - 1), ("-9223372036854775808ns", -(2**63)),
        ("0.100000000000000000000h", 360 * 10**9),
    ],
)  # fmt: skip
def test_durations(text: str, duration_ns: int) -> None:
    assert parse_duration(text) == duration_ns


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 'time: invalid duration ""'),
        ("3", 'time: missing unit in duration "3"'),
        ("1h5", 'time: missing unit in duration "1h5"'),
        ("-", 'time: invalid duration "-"'),
        ("s", 'time: invalid duration "s"'),
        (".s", 'time: invalid duration ".s"'),
        ("1.2.3s", 'time: invalid duration "1.2.3s"'),
        ("5x", 'time: unknown unit "x" in duration "5x"'),
        ("1 s", 'time: unknown unit " s" in duration "1 s"'),
        ("9223372036854775808ns", 'time: invalid duration "9223372036854775808ns"'),
        ("3000000h", 'time: invalid duration "3000000h"'),
    ],
)
def test_durations_that_are_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError) as refused:
        parse_duration(text)
    assert str(refused.value) == words


def test_truth_values() -> None:
    assert all(parse_bool(text) for text in ("1", "t", "T", "TRUE", "true", "True"))
    assert not any(parse_bool(text) for text in ("0", "f", "F", "FALSE", "false", "False"))
    for text in ("", "yes", "tRUE", " true", "2"):
        with pytest.raises(ValueError, match=f'strconv.ParseBool: parsing "{text}": invalid syntax'):
            parse_bool(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.2, "200ms"),
        (1.5, "1.5s"),
        (30, "30s"),
        (90, "1m30s"),
        (3600, "1h0m0s"),
        (3661, "1h1m1s"),
        (-1e-6, "-1µs"),
    ],
)
def test_durations_as_go_shows_them(seconds: float, text: str) -> None:
    assert format_duration(round(seconds * 1e9)) == text
    assert parse_duration(text) == round(seconds * 1e9)

"""Docker's and Go's small languages: any text gives a value or a ValueError, and what is printed is read again."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st

from havre.errors import HavreError, InvalidInput
from havre.golang.csvtext import split_csv
from havre.golang.ports import parse_host_port, parse_mappings, parse_port, parse_range
from havre.golang.scalars import float32, go_float
from havre.golang.signals import parse_signal
from havre.golang.units import format_duration, parse_bool, parse_duration, parse_size
from havre.oci.names import familiar, split_tag, split_version
from havre.oci.reference import parse_reference

MOST = 1 << 63
DIGITS = st.text("0123456789.-+ kKmMgGiIbBnuµsh", max_size=24)
PORTS = st.text("0123456789-:/[].tcpudsT", max_size=24)
NAMES = st.text("abZ019./:@_-", max_size=40)


@settings(max_examples=300, deadline=None)
@given(DIGITS | st.text(max_size=24))
def test_sizes_and_durations(text: str) -> None:
    for parse in (parse_size, parse_duration, parse_bool):
        with suppress(ValueError):
            assert -MOST <= parse(text) < MOST


@settings(max_examples=300, deadline=None)
@given(st.integers(-MOST, MOST - 1))
def test_a_duration_that_is_printed_is_read_again(nanoseconds: int) -> None:
    assert parse_duration(format_duration(nanoseconds)) == nanoseconds


@settings(max_examples=200, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_that_is_printed_is_read_again(value: float) -> None:
    assert float(go_float(value)) == value
    with suppress(OverflowError):
        assert float32(float32(value)) == float32(value)


@settings(max_examples=300, deadline=None)
@given(PORTS | st.text(max_size=24))
def test_ports(text: str) -> None:
    with suppress(ValueError):
        first, last = parse_range(text)
        assert 0 <= first <= last < 1 << 16
    with suppress(ValueError):
        found = parse_mappings(text)
        assert found
        for each in found:
            assert parse_mappings(each.name)[0].name == each.name
            if each.host_port:
                parse_host_port(each.host_port)
    with suppress(InvalidInput):
        port, protocol = parse_port(text)
        assert parse_port(f"{port}/{protocol}") == (port, protocol)


@settings(max_examples=200, deadline=None)
@given(NAMES | st.text(max_size=40))
def test_names_of_images(text: str) -> None:
    name, tag = split_tag(text)
    assert text == (f"{name}:{tag}" if tag else name) or text == f"{name}:"
    assert len(split_version(text)) == 2
    familiar(text)
    with suppress(InvalidInput):
        reference = parse_reference(text)
        assert parse_reference(reference.canonical()) == reference
        assert (reference.tag or "") == (split_tag(text)[1] if not reference.digest else reference.tag or "")


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=24))
def test_signals_and_lists(text: str) -> None:
    with suppress(HavreError):
        assert 0 < parse_signal(text) <= 64
    with suppress(ValueError):
        split_csv(text)

"""Values of flags that the command line reads by itself."""

from __future__ import annotations

import pytest

from havre.cli.parser import parse
from havre.golang.flags import Flag, UsageError

FLAGS = (Flag("memory", "m", "bytes", "Memory"), Flag("filter", "f", "filter", "Filter"))


def test_sizes_and_filters() -> None:
    options, _ = parse(FLAGS, ["-m", "1.5g", "-f", "Status = x=y"], stop=False)
    assert (options.memory, options.filter) == (3 << 29, [("status", "x=y")])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-m", "zz"], 'invalid argument "zz" for "-m, --memory" flag: invalid size: \'zz\''),
        (["-f", "x"], 'invalid argument "x" for "-f, --filter" flag: bad format of filter (expected name=value)'),
    ],
)
def test_refusals(words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(FLAGS, words, stop=False)
    assert str(caught.value) == message

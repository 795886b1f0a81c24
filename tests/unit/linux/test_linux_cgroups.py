"""Where a cgroup lies: always below the root of its tree."""

from __future__ import annotations

from pathlib import Path

import pytest

from havre.linux.cgroups import below, clean_group


@pytest.mark.parametrize(
    ("group", "clean"),
    [
        ("/havre/1", "/havre/1"),
        ("havre/1", "/havre/1"),
        ("../../../../x/1", "/x/1"),
        ("/../../../../x/1", "/x/1"),
        ("/a/../../x/./1", "/x/1"),
        ("//a//1/", "/a/1"),
        ("../..", "/"),
    ],
)
def test_a_group_stays_below_the_root_of_its_tree(group: str, clean: str) -> None:
    assert clean_group(group) == clean
    assert str(below(Path("/sys/fs/cgroup/memory"), group)) == f"/sys/fs/cgroup/memory{clean}".rstrip("/")

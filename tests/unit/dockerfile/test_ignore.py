"""Patterns of `.dockerignore` and COPY."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from havre.dockerfile.ignore import IgnoreRules, PathPattern, read_ignore_file
from havre.errors import InvalidInput


@pytest.mark.parametrize(
    ("pattern", "path", "covers"),
    [
        ("a", "a", True),
        ("/a", "a", True),
        ("a/", "a/b/c", True),
        ("a", "b/a", False),
        ("*.md", "x.md", True),
        ("*.md", "d/x.md", False),
        ("*/x*", "d/xy", True),
        ("**/x", "x", True),
        ("**/x", "a/b/x", True),
        ("a/**", "a/b/c", True),
        ("a/**", "a", False),
        ("**/a/**", "x/a", False),
        ("**/a/**", "x/a/.b", True),
        ("**", "a", True),
        ("a/**/z", "a/z", True),
        ("a/**/z", "a/b/c/z/q", True),
        ("a/**/z", "b/z", False),
        ("**.go", "a/b/c.go", True),
        ("a?c", "abc", True),
        ("a?c", "ac", False),
        ("[a-c]x", "bx", True),
        ("[^a-c]x", "bx", False),
        (r"a\*", "a*", True),
        (r"a\*", "ab", False),
        ("a/../b", "b", True),
        ("./a//b", "a/b", True),
        ("*a*b*", "xaxbx", True),
        ("*a*b", "xbxa", False),
    ],
)
def test_pattern(pattern: str, path: str, covers: bool) -> None:
    assert PathPattern(pattern).covers(path) is covers


def test_the_last_rule_decides() -> None:
    rules = IgnoreRules(["*", "!src", "src/*.o", "!src/keep.o"])
    assert rules.ignores("README")
    assert not rules.ignores("src/main.c")
    assert rules.ignores("src/x.o")
    assert not rules.ignores("src/keep.o")
    assert rules.may_take_back("src")
    assert not IgnoreRules(["a"]).may_take_back("a")
    assert not IgnoreRules(["a", "!b/c"]).may_take_back("a")
    assert IgnoreRules(["a", "!a/b/c"]).may_take_back("a/b")


def test_comments_and_blanks() -> None:
    assert read_ignore_file("\ufeff# c\n\n  a \n!b\n #d\n") == ["a", "!b", "#d"]


def test_an_open_class_is_refused() -> None:
    with pytest.raises(InvalidInput, match="without its"):
        PathPattern("a[b")


@given(st.text(alphabet="ab*?/[]!^-\\", max_size=30), st.text(alphabet="ab/", min_size=1, max_size=200))
def test_anything_ends_soon(pattern: str, path: str) -> None:
    try:
        PathPattern(pattern).covers(path)
    except InvalidInput:
        return

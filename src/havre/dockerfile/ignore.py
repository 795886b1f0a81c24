"""Path patterns of `.dockerignore` and COPY. Pure.

    *   any characters of one name        ?  one of them      [a-z] [^a]  one of a set      \\c  c itself
    **  any number of directories, also none                  !pattern    includes what earlier patterns exclude
    /** at the end: everything below the directory, but not the directory itself

A pattern also covers everything below a directory that it matches; the last pattern that covers a path decides.
Matching is by component and follows all alternatives at once (an NFA), so no pattern takes exponential time.

Source: the Docker documentation, ".dockerignore file"; Go's path.Match.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from havre.errors import InvalidInput

_MAX_PATTERN = 4096
_Name = re.Pattern[str] | str | None
"""A component of a pattern: a literal, an expression, or None for `**`."""


def read_ignore_file(text: str) -> list[str]:
    """The patterns of a `.dockerignore`, without blank lines and comments (lines that begin with `#`)."""
    lines = text.removeprefix("\ufeff").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


class PathPattern:
    """A pattern relative to the root, with or without a leading slash. Raises `InvalidInput`."""

    def __init__(self, pattern: str) -> None:
        if len(pattern) > _MAX_PATTERN:
            raise InvalidInput(f"pattern of {len(pattern)} characters", f"at most {_MAX_PATTERN} are read")
        self._names = _compile(pattern)

    def matches(self, path: str) -> bool:
        """Report whether the pattern matches exactly `path`."""
        return self._covering(path.split("/"))[1]

    def covers(self, path: str) -> bool:
        """Report whether the pattern matches `path` or a directory above it."""
        return self._covering(path.split("/"))[0]

    def may_cover_below(self, directory: str) -> bool:
        """Report whether the pattern can match something below `directory`."""
        states = {0}
        for name in directory.split("/"):
            states = self._step(self._rested(states), name)
        return bool(states)

    def _covering(self, names: Sequence[str]) -> tuple[bool, bool]:
        states = self._rested({0})
        covered = False
        for name in names:
            covered = covered or len(self._names) in states
            states = self._rested(self._step(states, name))
        whole = len(self._names) in states
        return (covered or whole) and bool(self._names), whole

    def _rested(self, states: set[int]) -> set[int]:
        """`states` and those reachable without consuming a component: past each `**`."""
        rested = set(states)
        for state in states:
            while state < len(self._names) and self._names[state] is None:
                state += 1
                rested.add(state)
        return rested

    def _step(self, states: set[int], name: str) -> set[int]:
        return {
            state if self._names[state] is None else state + 1
            for state in states
            if state < len(self._names) and _accepts(self._names[state], name)
        }


class IgnoreRules:
    """The patterns of a `.dockerignore`, in order."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._rules = [(pattern.startswith("!"), PathPattern(pattern.removeprefix("!"))) for pattern in patterns]
        self._takes_back = any(negated for negated, _ in self._rules)

    def ignores(self, path: str) -> bool:
        """Report whether the file or directory `path` (relative, without dots) is excluded."""
        ignored = False
        for negated, pattern in self._rules:
            if negated == ignored and pattern.covers(path):
                ignored = not negated
        return ignored

    def may_take_back(self, directory: str) -> bool:
        """Report whether something below the excluded `directory` may be included again."""
        return self._takes_back and any(
            negated and (pattern.covers(directory) or pattern.may_cover_below(directory))
            for negated, pattern in self._rules
        )


def has_wildcards(pattern: str) -> bool:
    """Report whether a path contains wildcards."""
    return re.search(r"[*?\[]|\\.", pattern) is not None


def _compile(pattern: str) -> list[_Name]:
    names: list[_Name] = []
    for part in pattern.strip().split("/"):
        if part in ("", "."):
            continue
        if part == "..":
            del names[-1:]
        elif "**" in part:
            before, after = re.split(r"\*\*+", part, maxsplit=1)
            names += [*([_compile_name(before + "*")] if before else []), None]
            names += [_compile_name("*" + after.replace("**", "*"))] if after else []
        else:
            names.append(_compile_name(part) if has_wildcards(part) else part)
    if len(names) > 1 and pattern.strip().endswith("/**"):
        names.insert(-1, _compile_name("*"))  # matches below the directory, but not the directory
    return names


def _compile_name(part: str) -> re.Pattern[str]:
    """The expression of a component. All `*` but the last are lazy and atomic: there is no backtracking."""
    pieces = [""]
    at = 0
    while at < len(part):
        char = part[at]
        at += 1
        if char == "*":
            pieces.append("")
        elif char == "?":
            pieces[-1] += "."
        elif char == "[":
            expression, at = _class(part, at)
            pieces[-1] += expression
        else:
            if char == "\\" and at < len(part):
                char = part[at]
                at += 1
            pieces[-1] += re.escape(char)
    if len(pieces) == 1:
        return re.compile(pieces[0], re.DOTALL)
    middle = "".join(f"(?>.*?{piece})" for piece in pieces[1:-1] if piece)
    return re.compile(f"{pieces[0]}{middle}.*{pieces[-1]}", re.DOTALL)


def _class(part: str, at: int) -> tuple[str, int]:
    end = part.find("]", at + 1)
    if end < 0:
        raise InvalidInput(f"syntax error in pattern {part!r}: a [ without its ]")
    inner = part[at:end]
    negated = inner[:1] in ("^", "!")
    body = inner[1:] if negated else inner
    ranges = "".join("-" if char == "-" and 0 < n < len(body) - 1 else re.escape(char) for n, char in enumerate(body))
    expression = f"[{'^' if negated else ''}{ranges}]"
    try:
        re.compile(expression)
    except re.error as error:
        raise InvalidInput(f"syntax error in pattern {part!r}: {error}") from None
    return expression, end + 1


def _accepts(wanted: _Name, name: str) -> bool:
    if isinstance(wanted, str):
        return wanted == name
    return wanted is None or wanted.fullmatch(name) is not None

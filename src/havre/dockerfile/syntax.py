"""Parses a Dockerfile to instructions: directives, comments, continuations, here-documents, flags. Pure.

    bytes --decode--> lines --join--> logical line --split--> NAME, --flags, rest  (+ here-documents)  = Instruction

Nothing is substituted and no argument is interpreted here; see `instructions` and `words`. All errors are
`DockerfileError`s with the file, the line and the part of it that is wrong.

Source: the Dockerfile reference ("Format", "Parser directives", "Here-Documents").
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from havre.errors import InvalidInput

MAX_BYTES = 4 << 20
MAX_INSTRUCTIONS = 4096
NAMES = (
    "ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "MAINTAINER",
    "ONBUILD", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR",
)  # fmt: skip
_MAX_SUGGESTED = 100
_PAD = 4  # lines of context in excerpts
_WIDEST = 200
_WITH_HEREDOCS = ("ADD", "COPY", "RUN")
_DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*")
_DIRECTIVES = ("syntax", "escape", "check")
_HEREDOC = re.compile(r"(?<![<\w])(\d*)<<(-?)(?:\"([^\"<\s]+)\"|'([^'<\s]+)'|([^\s\"'<>|&;()]+))")


class DockerfileError(InvalidInput):
    """An error in a Dockerfile: `line` counts from 1 (0: the whole file), `needle` is the wrong part of the line."""

    def __init__(self, problem: str, line: int = 0, needle: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.line = line
        self.needle = needle

    def shown_in(self, name: str, lines: Sequence[str]) -> DockerfileError:
        """A copy of the error whose message contains the file's name, the line and a pointer to the needle."""
        shown = type(self)(self.problem, self.line, self.needle)
        shown.hint = self.hint
        if not 0 < self.line <= len(lines):
            shown.message = self.problem
            return shown
        text = lines[self.line - 1].replace("\t", " ")[:200].rstrip()
        at = max(text.find(self.needle), 0) if self.needle else len(text) - len(text.lstrip())
        width = min(len(self.needle), len(text) - at) if self.needle in text and self.needle else 0
        number = f"{self.line:>4}"
        shown.message = (
            f"dockerfile parse error on line {self.line}: {self.problem}\n"
            f"{name}:{self.line}\n{number} | {text}\n{' ' * len(number)} | {' ' * at}{'^' * max(width, 1)}"
        )
        return shown


class UnknownInstruction(DockerfileError):
    """A line begins with `needle`, which is not an instruction."""


@dataclass(frozen=True)
class Heredoc:
    """A here-document: `text` ends with a newline unless empty; `expands` unless its delimiter was quoted."""

    name: str
    text: str
    expands: bool = True
    strips_tabs: bool = False


@dataclass(frozen=True)
class Instruction:
    """One instruction. `name` is in upper case, `flags` are as written (`--from=x`), `rest` is the remainder, trimmed.

    `line` and `end` are its first and last line, from 1; `original` is the joined line, for messages and for the
    history. `comments` are the comments directly above it.
    """

    name: str
    rest: str
    flags: tuple[str, ...] = ()
    heredocs: tuple[Heredoc, ...] = ()
    line: int = 0
    end: int = 0
    original: str = ""
    comments: tuple[str, ...] = ()

    @property
    def word(self) -> str:
        """The instruction's name as written."""
        return self.original.split(None, 1)[0]


@dataclass(frozen=True)
class Dockerfile:
    """A parsed file; `lines` are those of the file, for messages.

    `empty_continuations` are the last lines of instructions that contain a skipped empty line.
    """

    name: str
    lines: tuple[str, ...]
    directives: dict[str, str]
    instructions: tuple[Instruction, ...]
    empty_continuations: tuple[int, ...] = ()

    @property
    def escape(self) -> str:
        """The escape character."""
        return self.directives.get("escape", "\\")

    def excerpt(self, line: int) -> str:
        """The instruction at a line with its context, for messages; "" for a line that does not exist."""
        end = next((each.end for each in self.instructions if each.line == line), line)
        return excerpt(self.name, [text[:_WIDEST] for text in self.lines], line, end).rstrip()

    @contextmanager
    def located(self) -> Iterator[None]:
        """Add excerpts of this file to errors raised in the block."""
        try:
            yield
        except DockerfileError as error:
            raise error.shown_in(self.name, self.lines) from None


def excerpt(name: str, lines: Sequence[str], first: int, last: int) -> str:
    """An excerpt of a file with the lines `first` to `last` marked, in BuildKit's format."""
    if not 0 < first <= len(lines):
        return ""
    start, end = first, min(last, len(lines))
    marked = range(start, end + 1)
    shown = 0
    while shown < (_PAD if first == last else _PAD // 2):
        before, after = start > 1, end < len(lines)
        start, end = start - before, end + after
        shown += before + after + 1
    body = "".join(f" {at:>3} | {'>>>' if at in marked else '   '} {lines[at - 1]}\n" for at in range(start, end + 1))
    return f"{name}:{first}\n{'-' * 20}\n{body}{'-' * 20}\n"


def parse_dockerfile(data: bytes, name: str = "Dockerfile") -> Dockerfile:
    """The parsed Dockerfile. Raises `DockerfileError`."""
    if len(data) > MAX_BYTES:
        raise DockerfileError(f"{name} has {len(data)} bytes, at most {MAX_BYTES} are read")
    text = data.removeprefix(b"\xef\xbb\xbf").decode(errors="replace")
    lines = tuple(line.removesuffix("\r") for line in text.split("\n"))
    try:
        directives, reader = _begin(lines)
        instructions = tuple(reader.instructions())
    except DockerfileError as error:
        raise error.shown_in(name, lines) from None
    if not instructions:
        raise DockerfileError(f"the {name} cannot be empty: file with no instructions")
    return Dockerfile(name, lines, directives, instructions, tuple(reader.empty_continuations))


def parse_lines(lines: Sequence[str]) -> tuple[str, list[Instruction]]:
    """The escape character and the instructions (possibly none) in the lines. Raises `DockerfileError`."""
    directives, reader = _begin(lines)
    return directives.get("escape", "\\"), list(reader.instructions())


def _begin(lines: Sequence[str]) -> tuple[dict[str, str], _Reader]:
    directives, first = _parse_directives(lines)
    return directives, _Reader(lines, directives.get("escape", "\\"), first)


def parse_instruction(text: str, escape: str = "\\", line: int = 0) -> Instruction:
    """A single instruction (an ONBUILD trigger). Raises `DockerfileError`."""
    lines = tuple(text.split("\n"))
    try:
        found = list(_Reader(lines, escape, 0).instructions())
    except DockerfileError as error:
        raise DockerfileError(error.problem, line, error.needle) from None
    if len(found) != 1:
        raise DockerfileError(f"expected one instruction in {text!r}", line)
    only = found[0]
    return Instruction(only.name, only.rest, only.flags, only.heredocs, line, line, only.original)


def nearest(word: str, words: Iterable[str]) -> str:
    """` (did you mean X?)` for the closest of `words`, or ""."""
    close = difflib.get_close_matches(word, list(words), 1, 0.6)
    return f" (did you mean {close[0]}?)" if close else ""


def closest(word: str, words: Iterable[str]) -> str:
    """The closest of `words` within two edits of `word`, or ""; as BuildKit suggests variable names."""
    if len(word) > _MAX_SUGGESTED:
        return ""
    found, fewest = "", 3
    for other in words:
        if other == word:
            return ""
        if abs(len(other) - len(word)) < fewest and (edits := _edits(word, other)) < fewest:
            found, fewest = other, edits
    return found


def _edits(one: str, other: str) -> int:
    """The Levenshtein distance."""
    row = list(range(len(other) + 1))
    for above, char in enumerate(one):
        diagonal, row[0] = above, above + 1
        for at, wanted in enumerate(other, 1):
            diagonal, row[at] = row[at], min(row[at] + 1, row[at - 1] + 1, diagonal + (char != wanted))
    return row[-1]


def _parse_directives(lines: Sequence[str]) -> tuple[dict[str, str], int]:
    """Parser directives, which end at the first line that is none. Returns them and the index of that line."""
    found: dict[str, str] = {}
    for index, line in enumerate(lines):
        match = _DIRECTIVE.fullmatch(line.strip())
        key = match[1].lower() if match else ""
        if match is None or key not in _DIRECTIVES:
            return found, index
        if key in found:
            raise DockerfileError(f"only one {key} parser directive can be used", index + 1, match[1])
        if key == "escape" and match[2] not in ("\\", "`"):
            raise DockerfileError(f"invalid escape token '{match[2]}' does not match ` or \\", index + 1, match[2])
        found[key] = match[2]
    return found, len(lines)


class _Reader:
    """Joins physical lines from index `at` on to instructions."""

    def __init__(self, lines: Sequence[str], escape: str, at: int) -> None:
        self._lines = lines
        self._escape = escape
        self._at = at
        mark = re.escape(escape)
        self._continued = re.compile(rf"(?:(?<!{mark})|^){mark}[ \t]*$")
        self.empty_continuations: list[int] = []

    def instructions(self) -> Iterator[Instruction]:
        """All instructions, in order."""
        count = 0
        comments: list[str] = []
        while self._at < len(self._lines):
            line = self._lines[self._at].strip()
            if not line or line.startswith("#"):
                self._at += 1
                if comment := line.removeprefix("#").strip():
                    comments.append(comment)
                elif line:
                    comments.clear()
                continue
            count += 1
            if count > MAX_INSTRUCTIONS:
                raise DockerfileError(f"more than {MAX_INSTRUCTIONS} instructions", self._at + 1)
            yield self._instruction(tuple(comments))
            comments.clear()

    def _instruction(self, comments: tuple[str, ...]) -> Instruction:
        first = self._at + 1
        joined = self._join().strip()
        name, rest = _split_name(joined)
        upper = name.upper()
        if upper not in NAMES:
            raise UnknownInstruction(f"unknown instruction: {name}{nearest(upper, NAMES)}", first, name)
        flags, rest = split_flags(rest, self._escape) if upper != "ONBUILD" else ((), rest)
        holds = upper in _WITH_HEREDOCS or (upper == "ONBUILD" and _split_name(rest)[0].upper() in _WITH_HEREDOCS)
        heredocs = tuple(self._heredoc(*mark, first) for mark in _heredoc_marks(rest)) if holds else ()
        return Instruction(upper, rest, flags, heredocs, first, self._at, joined, comments)

    def _join(self) -> str:
        """The logical line that starts here, without comments and empty lines in it."""
        parts: list[str] = []
        skipped = False
        while self._at < len(self._lines):
            line = self._lines[self._at]
            self._at += 1
            stripped = line.strip()
            if parts and stripped.startswith("#"):
                continue
            if parts and not stripped:
                skipped = skipped or self._at < len(self._lines)
                continue
            if (match := self._continued.search(line)) is None:
                parts.append(line)
                break
            parts.append(line[: match.start()])
        if skipped:
            self.empty_continuations.append(self._at)
        return "".join(parts)

    def _heredoc(self, name: str, strips_tabs: bool, expands: bool, opened: int) -> Heredoc:
        body: list[str] = []
        while self._at < len(self._lines):
            line = self._lines[self._at]
            self._at += 1
            line = line.lstrip("\t") if strips_tabs else line
            if line == name:
                return Heredoc(name, "".join(f"{each}\n" for each in body), expands, strips_tabs)
            body.append(line)
        raise DockerfileError(f"unterminated heredoc: no line {name} ends it", opened, f"<<{name}")


def _split_name(line: str) -> tuple[str, str]:
    parts = line.split(None, 1)
    return (parts[0], parts[1].strip()) if len(parts) == 2 else (line, "")


def split_flags(rest: str, escape: str) -> tuple[tuple[str, ...], str]:
    """Split leading words that begin with `--`, unquoted, from the rest; a lone `--` ends them."""
    flags: list[str] = []
    while rest.startswith("--"):
        word, after = _take_word(rest, escape)
        if word == "--":
            return tuple(flags), after
        flags.append(word)
        rest = after
    return tuple(flags), rest


def _take_word(text: str, escape: str) -> tuple[str, str]:
    word, quote, at = "", "", 0
    while at < len(text):
        char = text[at]
        if not quote and char.isspace():
            break
        if char == escape and at + 1 < len(text):
            at += 1
            word += text[at]
        elif char == quote:
            quote = ""
        elif not quote and char in "\"'":
            quote = char
        else:
            word += char
        at += 1
    return word, text[at:].lstrip()


def _heredoc_marks(text: str) -> Iterator[tuple[str, bool, bool]]:
    """(delimiter, strips tabs, expands) of each `<<WORD` outside quotes."""
    bare = re.sub(r"(?<!<<)(?<!<<-)(\"(?:\\.|[^\"\\])*\"|'[^']*')", lambda match: "_" * len(match[0]), text)
    for match in _HEREDOC.finditer(bare):
        if (fd := match[1]) and fd != "0":
            continue
        quoted = match[3] or match[4]
        yield (quoted or match[5], bool(match[2]), quoted is None)

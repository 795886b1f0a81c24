"""A build context: the files of a directory, except those matched by `.dockerignore`.

`buildtar` sends all of them, `buildlist` those that the daemon does not have yet. A member has what a build may depend
on: path, type, mode, time and content. Owners are omitted, as they are the user's; so are sockets, which mean nothing
without their process. The Dockerfile and `.dockerignore` are always sent; one from elsewhere (stdin, another directory)
gets a special name.

Source: the Docker documentation, "Build context".
"""

from __future__ import annotations

import os
import stat

from havre.errors import Failed, InvalidInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from havre.dockerfile.ignore import IgnoreRules

_PIECE = 1 << 20
_SENT = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO)
_ELSEWHERE = ".dockerfile.0f1e2d3c"  # name of a Dockerfile that is not in the context


class Member:
    """A file to send. `link` is a symlink's target, or an earlier path of the same hard link; `path` has its
    content."""

    def __init__(
        self, name: str, mode: int, size: int, mtime_ns: int, link: str = "", path: str = "", content: bytes = b""
    ) -> None:
        self.name, self.mode, self.size, self.mtime_ns = name, mode, size, mtime_ns
        self.link, self.path, self.content = link, path, content


class DirectoryContext:
    """The context `root`. `dockerfile` is a path, as the user gave it, or its text where that came from elsewhere.

    None: an additional (named) context, without a Dockerfile.
    """

    def __init__(self, root: str, dockerfile: str | bytes | None = "") -> None:
        if not os.path.isdir(root):
            reason = "context must be a directory" if os.path.exists(root) else "path not found"
            raise InvalidInput(f'unable to prepare context: {reason}: "{root}"')
        self._root = os.path.realpath(root)
        self._text: bytes | None = None
        if dockerfile is None:
            self.dockerfile = "Dockerfile"
        elif isinstance(dockerfile, bytes):
            self._text, self.dockerfile = dockerfile, _ELSEWHERE
        else:
            self.dockerfile = self._locate(dockerfile)
        self._rules = self._read_rules()

    @property
    def root(self) -> str:
        """The directory, with links resolved."""
        return self._root

    @property
    def text(self) -> bytes | None:
        """The Dockerfile; None if it is unreadable or exceeds the size limit."""
        if self._text is not None:
            return self._text
        try:
            with open(os.path.join(self._root, self.dockerfile), "rb") as file:
                text = file.read(_PIECE + 1)
        except OSError:
            return None  # the build reports the error
        return text if len(text) <= _PIECE else None

    def _locate(self, given: str) -> str:
        """The Dockerfile's path in the context; stores its text if it is outside."""
        path = given or os.path.join(self._root, "Dockerfile")
        real = os.path.realpath(path)
        above, name = os.path.split(path)
        if name == "Dockerfile" and not os.path.isfile(real):
            real = os.path.realpath(os.path.join(above, "dockerfile"))
        if not os.path.isfile(real):
            raise InvalidInput(
                f"failed to read dockerfile: open {path}: no such file or directory", "name another by -f, --file"
            )
        if os.path.commonpath([real, self._root]) == self._root:
            return os.path.relpath(real, self._root)
        with open(real, "rb") as file:
            self._text = file.read()
        return _ELSEWHERE

    def _read_rules(self) -> IgnoreRules | None:
        for name in (f"{self.dockerfile}.dockerignore", ".dockerignore"):
            path = os.path.join(self._root, name)
            if os.path.isfile(path):
                from havre.dockerfile.ignore import IgnoreRules, read_ignore_file

                with open(path, errors="replace") as file:
                    patterns = read_ignore_file(file.read())
                return IgnoreRules([*patterns, f"!{self.dockerfile}", f"!{name}"])
        return None

    def members(self) -> Iterator[Member]:
        """Yield everything to send, a directory before its content. Raises Failed for an unreadable file."""
        linked: dict[tuple[int, int], str] = {}
        try:
            yield from self._walk("", linked)
        except OSError as error:
            raise Failed(f"error checking context: can't read '{error.filename}': {error.strerror}") from error
        if self._text is not None:
            yield Member(_ELSEWHERE, stat.S_IFREG | 0o644, len(self._text), _mark(self._text), content=self._text)

    def _walk(self, below: str, linked: dict[tuple[int, int], str]) -> Iterator[Member]:
        with os.scandir(os.path.join(self._root, below)) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        for entry in found:
            name = f"{below}/{entry.name}" if below else entry.name
            ignored = self._rules is not None and self._rules.ignores(name)
            is_directory = entry.is_dir(follow_symlinks=False)
            if ignored and not (is_directory and self._rules is not None and self._rules.may_take_back(name)):
                continue
            status = entry.stat(follow_symlinks=False)
            inside = self._walk(name, linked) if is_directory else iter(())
            first = next(inside, None)
            if first is None and (ignored or stat.S_IFMT(status.st_mode) not in _SENT):
                continue
            yield _member(entry.path, name, status, linked)
            if first is not None:
                yield first
                yield from inside


class TextContext:
    """A context that consists of a Dockerfile, given as text."""

    root = "-"
    dockerfile = "Dockerfile"

    def __init__(self, text: bytes) -> None:
        self.text = text

    def members(self) -> Iterator[Member]:
        """The Dockerfile."""
        yield Member(self.dockerfile, stat.S_IFREG | 0o644, len(self.text), _mark(self.text), content=self.text)


def member_of(path: str, name: str) -> Member:
    """The member for the file at `path`. Raises OSError."""
    return _member(path, name, os.stat(path), {})


def _member(path: str, name: str, status: os.stat_result, linked: dict[tuple[int, int], str]) -> Member:
    mode, size, link = status.st_mode, 0, ""
    if stat.S_ISLNK(mode):
        link = os.readlink(path)
    elif stat.S_ISREG(mode):
        size = status.st_size
        if status.st_nlink > 1 and (first := linked.setdefault((status.st_dev, status.st_ino), name)) != name:
            link, size = first, 0
    return Member(name, mode, size, status.st_mtime_ns, link, path)


def _mark(text: bytes) -> int:
    """A time derived from the text's hash, for a file without one."""
    mark = 0
    for byte in text:
        mark = (mark * 1099511628211 ^ byte) % (1 << 60)
    return mark


def content_of(member: Member) -> Iterator[bytes]:
    """Yield exactly as many bytes as its size, even if the file changes meanwhile."""
    if member.content:
        yield member.content
        return
    left = member.size
    descriptor = os.open(member.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while left:
            piece = os.read(descriptor, min(left, _PIECE)) or bytes(min(left, _PIECE))
            left -= len(piece)
            yield piece
    finally:
        os.close(descriptor)

"""`watch`: detects changes in the paths of services' `develop.watch`, and plans what to do.

    sync           copy changed files into the containers, remove there what was removed here
    sync+restart   and restart them          sync+exec   and run a command in them
    restart        restart only              rebuild     rebuild the image and replace them

A `Tree` is the last known state of a rule's files. inotify(7) reports the directories with changes (`watched`), which
are read again and compared. The result depends neither on how an editor writes a file nor on the order of events.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from havre.compose.project import Project
from havre.compose.watched import Folders
from havre.dockerfile.ignore import IgnoreRules, PathPattern, read_ignore_file

Seen = dict[str, tuple[int, int, int]]
"""Modification time, size and mode of a directory's files by name; of a rule's only file by ""."""


class Rule(NamedTuple):
    """One entry of `develop.watch`; without `include` all files that are not ignored match."""

    service: str
    path: Path
    action: str
    target: str
    ignore: IgnoreRules
    include: tuple[PathPattern, ...] = ()
    hook: Mapping[str, Any] = {}
    initial_sync: bool = False

    def means(self, name: str) -> bool:
        """Report whether a file matches; `name` is its path below the rule's."""
        included = not self.include or any(pattern.covers(name) for pattern in self.include)
        return included and not self.ignore.ignores(name)


class Changes(NamedTuple):
    """Changes of a rule's files: new or modified ones, and removed ones."""

    rule: Rule
    changed: list[str]
    removed: list[str]


class Tree:
    """The last known state of a rule's files."""

    def __init__(self, rule: Rule, folders: Folders) -> None:
        self.rule = rule
        self._watched = folders
        self._folders: dict[str, Seen] = {}
        self._above = ""
        self.update([str(rule.path)])

    def everything(self) -> Changes:
        """All files, as if newly created."""
        names = [_below(folder, name) for folder, seen in self._folders.items() for name in seen]
        return Changes(self.rule, sorted(names), [])

    def update(self, folders: Collection[str]) -> Changes:
        """Read those of `folders` (absolute) again that belong to the rule."""
        root = str(self.rule.path)
        changes = Changes(self.rule, [], [])
        if root in folders or self._above in folders:
            self._watch_above(root)
            self._look("", changes)
        for folder in folders:
            below = folder.removeprefix(root + "/")
            if below != folder and below in self._folders:
                self._look(below, changes)
        return Changes(self.rule, sorted(set(changes.changed)), sorted(set(changes.removed)))

    def _watch_above(self, root: str) -> None:
        """Watch for creation, removal and replacement of the rule's path."""
        self._above = os.path.dirname(root)
        while True:
            try:
                self._watched.add(self._above)  # again: it may be another directory of that name
                return
            except (FileNotFoundError, NotADirectoryError):
                self._above = os.path.dirname(self._above)

    def _look(self, folder: str, changes: Changes) -> None:
        before = self._folders.pop(folder, {})
        found = self._read(folder)
        files, below = found if found is not None else ({}, [])
        changes.changed.extend(_below(folder, name) for name, stamp in files.items() if before.get(name) != stamp)
        changes.removed.extend(_below(folder, name) for name in before if name not in files)
        if found is not None:
            self._folders[folder] = files
        for gone in [known for known in self._folders if known and _parent(known) == folder and known not in below]:
            self._look(gone, changes)
        for new in below:
            if new not in self._folders:
                self._look(new, changes)

    def _read(self, folder: str) -> tuple[Seen, list[str]] | None:
        """The files and directories in a directory, which is watched from now on; None if it does not exist."""
        path = os.path.join(self.rule.path, folder) if folder else str(self.rule.path)
        if not folder and os.path.isfile(path):
            return {"": _stamp(os.lstat(path))}, []
        files: Seen = {}
        below: list[str] = []
        try:
            self._watched.add(path)
            entries = list(os.scandir(path))
        except OSError:  # removed, or not readable
            return None
        for entry in entries:
            name = _below(folder, entry.name)
            if self.rule.ignore.ignores(name):
                continue
            try:
                if entry.is_dir(follow_symlinks=False):
                    below.append(name)
                elif self.rule.means(name):
                    files[entry.name] = _stamp(entry.stat(follow_symlinks=False))
            except FileNotFoundError:  # removed since it was listed
                continue
        return files, below


def _below(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _parent(folder: str) -> str:
    return folder.rpartition("/")[0]


def _stamp(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_mtime_ns, status.st_size, status.st_mode


def rules_of(project: Project) -> list[Rule]:
    """The rules of all services."""
    rules = []
    for name in sorted(project.services):
        service = project.services[name]
        context = Path(service.get("build", {}).get("context", ""))
        for entry in service.get("develop", {}).get("watch", ()):
            path = Path(entry["path"])
            lines = [*entry.get("ignore", ()), "**/.git", "**/*~", "**/*.swp"]
            ignore = context / ".dockerignore"
            if path == context and ignore.is_file():
                lines = read_ignore_file(ignore.read_text()) + lines
            rules.append(
                Rule(
                    service=name,
                    path=path,
                    action=entry["action"],
                    target=entry.get("target", ""),
                    ignore=IgnoreRules(lines),
                    include=tuple(map(PathPattern, entry.get("include", ()))),
                    hook=entry.get("exec", {}),
                    initial_sync=bool(entry.get("initial_sync")),
                )
            )
    return rules


def pack(changes: Iterable[Changes]) -> bytes:
    """A tar, to be unpacked at the container's root, of the files at their paths below the rules' targets."""
    from havre.tar.headers import FLAGS, end, header

    pieces: list[bytes] = []
    folders: set[str] = set()
    for each in changes:
        for path in each.changed:
            place = inside(each.rule, path).lstrip("/")
            source = each.rule.path / path if path else each.rule.path
            with suppress(FileNotFoundError):  # gone again, which will be told
                for folder in _new_folders(place, folders):
                    pieces += [header(os.fsencode(folder) + b"/", FLAGS[stat.S_IFDIR], mode=0o755)]
                pieces += _member(source, os.fsencode(place))
    return b"".join([*pieces, end(0)])


def _member(source: Path, place: bytes) -> list[bytes]:
    """A file with its content, a link; what else there may be is left out. Raises FileNotFoundError."""
    from havre.tar.headers import FLAGS, header, padding

    status = source.lstat()
    kind = stat.S_IFMT(status.st_mode)
    if kind not in (stat.S_IFREG, stat.S_IFLNK):
        return []
    data = source.read_bytes() if kind == stat.S_IFREG else b""
    head = header(
        place,
        FLAGS[kind],
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        size=len(data),
        mtime=int(status.st_mtime),
        link=os.fsencode(os.readlink(source)) if kind == stat.S_IFLNK else b"",
    )
    return [head, data, padding(len(data))]


def _new_folders(place: str, known: set[str]) -> Iterator[str]:
    parts = place.split("/")[:-1]
    for end in range(1, len(parts) + 1):
        name = "/".join(parts[:end])
        if name not in known:
            known.add(name)
            yield name


def inside(rule: Rule, path: str) -> str:
    """The path of a file in the container."""
    return f"{rule.target.rstrip('/')}/{path}" if path else rule.target

"""`watch`: what changed in the folders that services' `develop.watch` names, and what to do about it.

    sync           copy what changed into the containers, remove there what was removed here
    sync+restart   and restart them          sync+exec   and run a command in them
    restart        restart only              rebuild     build the image anew and replace them

Folders are looked through twice a second: the kernel's notifications are out of reach of client rooms, see different
events on every file system, and miss what network file systems change.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from havre.compose.project import Project
from havre.oci.ignore import IgnoreRules, read_ignore_file

Seen = dict[str, tuple[int, int, int]]
"""Time of change, size and mode of files, by their path below the rule's; "" is the path itself."""


class Rule(NamedTuple):
    """One entry of `develop.watch`."""

    service: str
    path: Path
    action: str
    target: str
    ignore: IgnoreRules
    hook: Mapping[str, Any] = {}

    def look(self) -> Seen:
        """What is there now, without what is ignored."""
        if not self.path.is_dir():
            return {"": _stamp(self.path)} if self.path.exists() else {}
        seen: Seen = {}
        for folder, folders, files in os.walk(self.path):
            below = os.path.relpath(folder, self.path)
            prefix = "" if below == "." else below + "/"
            folders[:] = [name for name in folders if not self.ignore.ignores(prefix + name)]
            for name in files:
                if not self.ignore.ignores(prefix + name):
                    seen[prefix + name] = _stamp(Path(folder) / name)
        return seen


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        status = path.lstat()
    except FileNotFoundError:  # gone between listing and looking
        return (0, 0, 0)
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
                Rule(name, path, entry["action"], entry.get("target", ""), IgnoreRules(lines), entry.get("exec", {}))
            )
    return rules


def changes(before: Seen, after: Seen) -> tuple[list[str], list[str]]:
    """Paths that are new or different, and paths that are gone."""
    changed = sorted(path for path, stamp in after.items() if before.get(path) != stamp)
    return changed, sorted(set(before) - set(after))


def pack(rule: Rule, paths: list[str]) -> bytes:
    """A tar, to be unpacked at the container's root, with the files at their places below the rule's target."""
    archive = io.BytesIO()
    folders: set[str] = set()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path in paths:
            place = inside(rule, path).lstrip("/")
            _add_folders(tar, place, folders)
            source = rule.path / path if path else rule.path
            if source.exists() or source.is_symlink():
                tar.add(source, place, recursive=False)
    return archive.getvalue()


def _add_folders(tar: tarfile.TarFile, place: str, folders: set[str]) -> None:
    parts = place.split("/")[:-1]
    for end in range(1, len(parts) + 1):
        name = "/".join(parts[:end])
        if name not in folders:
            folders.add(name)
            member = tarfile.TarInfo(name)
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(member)


def inside(rule: Rule, path: str) -> str:
    """Where a file is in the container."""
    return f"{rule.target.rstrip('/')}/{path}" if path else rule.target

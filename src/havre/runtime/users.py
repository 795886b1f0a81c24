"""Resolves `--user` names and numbers against the container's own /etc/passwd and /etc/group.

    ""             root, or the first entry with UID 0 in passwd
    user           by name, else by number; its group and supplementary groups from the files
    user:group     only that group, no supplementary groups

Both files are the image's and hostile: they are opened inside the root file system (openat2(2) with RESOLVE_IN_ROOT),
must be regular files, and are read up to a limit (CVE-2026-47262). Error texts are Docker's. FIFOs, devices and sockets
are rejected, as the OCI runtimes would open them (for HOME) and hang.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from havre.errors import InvalidInput
from havre.linux.openat2 import open_in_root, open_regular_in_root
from havre.runtime.plan import User

MAX_ID = (1 << 31) - 1
MAX_FILE = 4 << 20
PASSWD, GROUP = "etc/passwd", "etc/group"
_BLOCKING = {stat.S_IFIFO: "fifo", stat.S_IFCHR: "device", stat.S_IFBLK: "device", stat.S_IFSOCK: "socket"}


@dataclass(frozen=True)
class _Entry:
    name: str
    number: int
    fields: list[str]


def resolve_user(rootfs: Path, user: str, group_add: Sequence[str] = ()) -> User:
    """The user that a process with `--user user --group-add ...` runs as in `rootfs`.

    Raises InvalidInput, as in "unable to find user x: no matching entries in passwd file". Blocking.
    """
    name, colon, group = user.partition(":")
    groups = list(_entries(_read(rootfs, GROUP), 2))
    entry = _find(_entries(_read(rootfs, PASSWD), 2), name or "0")
    uid = (
        entry.number
        if entry
        else _number(name or "0", f"unable to find user {name}: no matching entries in passwd file")
    )
    gid = _parse_gid(entry)
    supplementary: list[int] = []
    if colon and group:
        gid = _group(groups, group)
    elif entry:
        supplementary = [each.number for each in groups if _is_member(each, entry)]
    supplementary += [_group(groups, each, "Unable") for each in group_add]
    return User(uid=uid, gid=gid, groups=tuple(dict.fromkeys(supplementary)))


def _is_member(group: _Entry, user: _Entry) -> bool:
    return len(group.fields) > 3 and user.name in group.fields[3].split(",")


def _parse_gid(entry: _Entry | None) -> int:
    if entry is None:
        return 0
    try:
        return _bounded(int(entry.fields[3]))
    except (IndexError, ValueError):
        return 0


def _group(groups: Sequence[_Entry], group: str, unable: str = "unable") -> int:
    entry = _find(iter(groups), group)
    if entry:
        return entry.number
    return _number(group, f"{unable} to find group {group}: no matching entries in group file")


def _find(entries: Iterator[_Entry], wanted: str) -> _Entry | None:
    """The first entry with that name or, when `wanted` is a number, that number."""
    number = int(wanted) if wanted.isascii() and wanted.isdigit() else None
    return next((entry for entry in entries if entry.name == wanted or entry.number == number), None)


def _number(text: str, otherwise: str) -> int:
    if not (text.isascii() and text.lstrip("-").isdigit()):
        raise InvalidInput(otherwise)
    return _bounded(int(text))


def _bounded(number: int) -> int:
    if not 0 <= number <= MAX_ID:
        raise InvalidInput(f"uids and gids must be in range 0-{MAX_ID}")
    return number


def _entries(text: str, number_field: int) -> Iterator[_Entry]:
    """Yield the well-formed lines of a passwd or group file; skips others, as libcs do."""
    for line in text.splitlines():
        fields = line.strip().split(":")
        if len(fields) <= number_field or not fields[0] or fields[0].startswith("#"):
            continue
        if fields[number_field].isascii() and fields[number_field].isdigit():
            number = int(fields[number_field])
            if number <= MAX_ID:
                yield _Entry(fields[0], number, fields)


def check_accounts(rootfs: Path) -> None:
    """Reject account files on which an OCI runtime would hang: both read them for a home directory. InvalidInput."""
    for path in (PASSWD, GROUP):
        _status(rootfs, path)


def _status(rootfs: Path, path: str) -> os.stat_result | None:
    """The status of an account file, None if missing; InvalidInput for a type that blocks when opened."""
    try:
        pinned = open_in_root(rootfs, path, os.O_PATH)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise
    try:
        status = os.fstat(pinned)
    finally:
        os.close(pinned)
    if kind := _BLOCKING.get(stat.S_IFMT(status.st_mode)):
        raise InvalidInput(f"the container's /{path} is a {kind}, a regular file is expected")
    return status


def _read(rootfs: Path, path: str) -> str:
    """The content of a file in the container; "" when it is missing or a directory."""
    status = _status(rootfs, path)
    if status is None or (descriptor := open_regular_in_root(rootfs, path)) is None:
        return ""
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise InvalidInput(f"/{path} of the image is larger than {MAX_FILE} bytes")
    return data.decode(errors="replace")

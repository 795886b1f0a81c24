"""ID ranges of the host for user namespaces: the daemon's `--userns-remap`, a container's `--userns`.

    --userns    with userns-remap         without
    ""          the daemon's range        not mapped
    host        not mapped                not mapped
    auto        a range of its own, from the subordinate IDs of the user `containers`

An automatic range is stored in the row at creation and belongs to the container until its row is deleted. The daemon's
range may change at every start: no file on disk depends on it.

Sources: subuid(5), subgid(5); dockerd's "userns-remap".
"""

from __future__ import annotations

import grp
import pwd
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from havre.containers.container import Container
from havre.errors import Conflict, InvalidInput
from havre.linux import accounts
from havre.linux.idmap import IdRange
from havre.wire.config import HostConfig

AUTO, HOST = "auto", "host"
AUTO_USER = "containers"
AUTO_COUNT = 65536
DEFAULT_USER = "dockremap"
_LOWEST = 100_000  # first ID that useradd(8) and dockerd allocate

_SUBUID, _SUBGID = Path("/etc/subuid"), Path("/etc/subgid")


class IdRanges:
    """`remap` is the default range of containers; None: IDs are not mapped."""

    def __init__(self, remap: IdRange | None) -> None:
        self.remap = remap

    def own(self, taken: Collection[IdRange]) -> IdRange:
        """An unused range for a container with userns=auto. Raises `Conflict` if there is none. Blocking."""
        used = [*taken, *([self.remap] if self.remap else [])]
        return next(each for each in _slices() if not any(_overlap(each, other) for other in used))

    def of(self, container: Container) -> IdRange | None:
        """The range of a container's next start."""
        return (
            container.run.ids
            if container.spec.host_config.userns_mode == AUTO
            else self.default(container.spec.host_config)
        )

    def default(self, host: HostConfig) -> IdRange | None:
        """The daemon's default for a container without an automatic range."""
        return None if host.userns_mode == HOST else self.remap


def _slices() -> Iterator[IdRange]:
    """The candidate ranges for userns=auto; then raises `Conflict`."""
    users, groups = _read(_SUBUID), _read(_SUBGID)
    uid, uids = _range_of((AUTO_USER,), users, "subuid", AUTO_USER)
    gid, gids = _range_of((AUTO_USER,), groups, "subgid", AUTO_USER)
    for offset in range(0, min(uids, gids) - AUTO_COUNT + 1, AUTO_COUNT):
        yield IdRange(uid + offset, gid + offset, AUTO_COUNT)
    raise Conflict(
        f"every range of {AUTO_COUNT} IDs of the user {AUTO_USER} is taken",
        f"remove containers, or give {AUTO_USER} more in {_SUBUID} and {_SUBGID}",
    )


def _overlap(one: IdRange, other: IdRange) -> bool:
    return any(a < b + other.count and b < a + one.count for a, b in ((one.uid, other.uid), (one.gid, other.gid)))


def check_namespaces(host: HostConfig, hint: str = "add --userns=host") -> None:
    """Refuse options that are incompatible with user namespaces. Raises `InvalidInput` with dockerd's message."""
    for wrong, text in (
        (
            host.privileged,
            "privileged mode is incompatible with user namespaces.  "
            "You must run the container in the host namespace when running privileged mode",
        ),
        (
            host.network_mode == HOST,
            "cannot share the host's network namespace when user namespaces are enabled",
        ),
        (host.pid_mode == HOST, "cannot share the host PID namespace when user namespaces are enabled"),
        (host.ipc_mode == HOST, "cannot share the host IPC namespace when user namespaces are enabled"),
    ):
        if wrong:
            raise InvalidInput(text, hint)


def read_remap(text: str) -> IdRange | None:
    """The range of a `userns-remap`: `default`, USER or UID, with or without `:GROUP`; None for "".

    It is the first range of the user in /etc/subuid and of the group in /etc/subgid; for `default` both are created if
    missing. Raises `InvalidInput`. Blocking.
    """
    if not text:
        return None
    user, colon, group = text.partition(":")
    if not user or ":" in group or (colon and not group):
        raise InvalidInput(f'invalid user/group specification in --userns-remap: "{text}"', "USER[:GROUP] or UID[:GID]")
    if text == "default":
        _make_default_user()
        user_names = group_names = (DEFAULT_USER, DEFAULT_USER)
    else:
        user_names = _names(user, "user", lambda: _user(user))
        group = group or user_names[0]
        group_names = _names(group, "group", lambda: _group(group))
    uid, uids = _range_of(user_names, _read(_SUBUID), "subuid", user_names[0])
    gid, gids = _range_of(group_names, _read(_SUBGID), "subgid", group_names[0])
    return IdRange(uid, gid, min(uids, gids))


def _make_default_user() -> None:
    """Create the user dockremap and allocate the first free ranges to it, unless they exist.

    As dockerd does (moby's pkg/idtools, AddNamespaceRangesUser). On failure, `InvalidInput` says what to do manually.
    """
    taken = {groups: list(_ranges(_read(file))) for file, groups in ((_SUBUID, False), (_SUBGID, True))}
    lacking = [groups for groups, ranges in taken.items() if all(owner != DEFAULT_USER for owner, _, _ in ranges)]
    try:
        if lacking and not _has_account(DEFAULT_USER):
            accounts.add_system_user(DEFAULT_USER)
        for groups in lacking:
            accounts.add_subordinate_ids(DEFAULT_USER, next_free(taken[groups]), AUTO_COUNT, groups=groups)
    except OSError as error:
        raise InvalidInput(
            f"--userns-remap=default: making the user {DEFAULT_USER} and its ranges failed: {error.strerror}",
            f"make a system user {DEFAULT_USER}, and add {DEFAULT_USER}:FIRST:{AUTO_COUNT} to {_SUBUID} and {_SUBGID}",
        ) from error


def _has_account(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def next_free(ranges: Iterable[tuple[str, int, int]]) -> int:
    """The first of `AUTO_COUNT` free IDs, from 100000 on; `ranges` are in use (owner, first, count)."""
    first = _LOWEST
    for _, start, count in sorted(ranges, key=lambda each: each[1]):
        if start < first + AUTO_COUNT and first < start + count:
            first = start + count
    return first


def _names(asked: str, kind: str, find: Callable[[], tuple[str, str]]) -> tuple[str, str]:
    """Name and number of a user or group: both are valid in subuid(5)."""
    try:
        return find()
    except KeyError:
        raise InvalidInput(
            f'--userns-remap: there is no {kind} "{asked}"', f"make it, or name another {kind}"
        ) from None


def _user(asked: str) -> tuple[str, str]:
    entry = pwd.getpwuid(int(asked)) if asked.isdecimal() else pwd.getpwnam(asked)
    return entry.pw_name, str(entry.pw_uid)


def _group(asked: str) -> tuple[str, str]:
    entry = grp.getgrgid(int(asked)) if asked.isdecimal() else grp.getgrnam(asked)
    return entry.gr_name, str(entry.gr_gid)


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except FileNotFoundError:
        return ""


def _ranges(text: str) -> Iterator[tuple[str, int, int]]:
    """Owner, first ID and count of every range in subuid(5) format."""
    for line in text.splitlines():
        owner, _, numbers = line.strip().partition(":")
        first, _, count = numbers.partition(":")
        if first.isdecimal() and count.isdecimal() and int(count):
            yield owner, int(first), int(count)


def _range_of(names: Collection[str], text: str, file: str, shown: str) -> tuple[int, int]:
    """First ID and count of the first range of one of `names` in `text`, lines of OWNER:FIRST:COUNT."""
    for owner, first, count in _ranges(text):
        if owner in names:
            return first, count
    raise InvalidInput(
        f'can\'t create ID mappings: no {file} ranges found for "{shown}"',
        f"add one: echo {shown}:1000000:{AUTO_COUNT} >>/etc/{file}",
    )

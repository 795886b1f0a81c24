"""API versions: which are supported, and what differs between them beyond the fields of requests and answers.

`conversion` changes those for older clients.

Source: Docker Engine API, "version history".
Why: docs/decisions/060.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from havre.errors import InvalidInput


class Version(NamedTuple):
    """An API version; compares numerically: 1.9 is older than 1.24."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


NEWEST = Version(1, 55)
OLDEST = Version(1, 24)

_TEXT = re.compile(r"([0-9]{1,4})(?:\.([0-9]{1,4}))?((?:\.[0-9.]*)?)")


def parse_version(text: str, oldest: Version = OLDEST) -> Version:
    """Parse the version in a path. `InvalidInput`, in dockerd's words, if it is not from `oldest` to `NEWEST`."""
    match = _TEXT.fullmatch(text)
    if match is None:
        raise InvalidInput(f"invalid API version {text}")
    version = Version(int(match[1]), int(match[2] or 0))
    if version < oldest:
        raise InvalidInput(
            f"client version {text} is too old. Minimum supported API version is {oldest}, "
            "please upgrade your client to a newer version"
        )
    # A third number counts as in moby's versions.Compare: 1.45.1 is newer than 1.45, 1.45.0 is not.
    if version > NEWEST or (version == NEWEST and match[3].strip(".0")):
        raise InvalidInput(f"client version {text} is too new. Maximum supported API version is {NEWEST}")
    return version


def multiplexed(version: Version, tty: bool) -> bool:
    """Report whether a stream is announced as `multiplexed-stream`; without a TTY it is framed in any version."""
    return not tty and version >= (1, 42)


def networks_list_containers(version: Version) -> bool:
    """Whether a list of networks tells of the containers on each. Since 1.28 inspecting one does, alone."""
    return version < (1, 28)


def networks_tell_of_ipv4(version: Version) -> bool:
    """Whether networks have EnableIPv4, in requests and answers; before, all of them had IPv4."""
    return version >= (1, 48)


def networks_tell_of_their_use(version: Version) -> bool:
    """Whether inspecting a network counts the addresses of its subnets."""
    return version >= (1, 52)


def images_have_one_filter(version: Version) -> bool:
    """Whether a list of images has the parameter `filter`, one pattern of names. `filters` has it since 1.25."""
    return version < (1, 41)


def progress_is_drawn(version: Version) -> bool:
    """Whether progress has a bar as text beside its numbers, deprecated since 1.48."""
    return version < (1, 52)


def events_tell_of_created_images(version: Version) -> bool:
    """Whether the event `create` of an image is told, which a build and `commit` publish."""
    return version >= (1, 46)


def events_repeat_fields(version: Version) -> bool:
    """Whether events have the fields of API 1.21 as well: status, id, from."""
    return version < (1, 52)


def lists_can_tell_identities(version: Version) -> bool:
    """Whether a list of images has the parameter `identity`."""
    return version >= (1, 54)


def disk_usage_has_types(version: Version) -> bool:
    """Whether disk usage can be asked for by `type`; older clients get all of it."""
    return version >= (1, 42)


def disk_usage_can_be_brief(version: Version) -> bool:
    """Whether `verbose` is understood, which leaves out what only older clients read of the disk usage."""
    return version >= (1, 52)


def read_only_is_recursive(version: Version) -> bool:
    """Report whether a read-only bind mount also makes its submounts read-only by default."""
    return version >= (1, 44)


def mac_address_is_the_networks(version: Version) -> bool:
    """Report whether a MAC address belongs in `EndpointsConfig`, the container's own being deprecated."""
    return version >= (1, 44)


def mac_address_is_the_containers(version: Version) -> bool:
    """Report whether a container has a MAC address beside those of its networks."""
    return version < (1, 52)


def volume_driver_is_warned_of(version: Version) -> bool:
    """Report whether a volume driver that no mount heeds is warned of; before, clients did."""
    return version >= (1, 48)


def empty_bindings_are_warned_of(version: Version) -> bool:
    """Report whether empty lists of port bindings are warned of, which will lose their meaning."""
    return version >= (1, 52)

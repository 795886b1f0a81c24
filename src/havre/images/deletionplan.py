"""Docker's rules for removing an image, as a plan.

    by name   one name of several          untag only
              its last name                untag, delete the image (unless a container uses it)
              its last tag in a repository the repository's digest references are removed, too
    by ID     names in one repository      untag them, delete the image
              names in several             409, unless forced

A running container prevents deletion of its image even with force; a stopped one only without. Removing the last
name with force always succeeds; the image itself stays while a running container uses it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from havre.errors import Conflict
from havre.images.catalog import Image
from havre.images.summaries import ImageUser
from havre.oci.reference import Reference
from havre.wire.values import Value


class RemovedItem(Value, omit_defaults=True):
    """One line of the response: a removed name, or the ID of a deleted image or chain ID of a layer."""

    untagged: str = ""
    deleted: str = ""


@dataclass(frozen=True, slots=True)
class RemovalFacts:
    """The input of the decision. `by_name` is the name given, None when the image was given by its ID."""

    image: Image
    names: Sequence[Reference]
    users: Sequence[ImageUser]
    has_children: bool
    by_name: Reference | None
    force: bool


@dataclass(frozen=True, slots=True)
class RemovalPlan:
    """The names to remove, in order, and whether to delete the image."""

    untag: tuple[Reference, ...]
    delete: bool


def plan_removal(facts: RemovalFacts) -> RemovalPlan:
    """The plan for these facts. Raises `Conflict` with dockerd's messages."""
    if facts.by_name is not None:
        return _by_name(facts, facts.by_name)
    obstacle = _obstacle(facts, names_count=not _single(facts.names), ignore_stopped=facts.force)
    if obstacle is not None:
        raise obstacle
    return RemovalPlan(tuple(facts.names), delete=True)


def _by_name(facts: RemovalFacts, name: Reference) -> RemovalPlan:
    if facts.users and not facts.force and _single(facts.names):
        raise Conflict(
            f'conflict: unable to remove repository reference "{name.familiar()}" (must force)'
            f" - container {facts.users[0].id[:12]} is using its referenced image {_short(facts.image)}"
        )
    rest = [other for other in facts.names if other != name]
    gone = [name]
    if name.digest is None and not any(other.digest is None and other.name == name.name for other in rest):
        gone += [other for other in rest if other.name == name.name]
        rest = [other for other in rest if other.name != name.name]
    delete = not rest and _obstacle(facts, names_count=False, ignore_stopped=facts.force) is None
    return RemovalPlan(tuple(gone), delete)


def _obstacle(facts: RemovalFacts, *, names_count: bool, ignore_stopped: bool) -> Conflict | None:
    """The error that prevents deletion of the image, those that cannot be forced first."""
    image = _short(facts.image)
    if facts.has_children:
        return Conflict(f"conflict: unable to delete {image} (cannot be forced) - image has dependent child images")
    for user in facts.users:
        if user.running:
            words = f"image is being used by running container {user.id[:12]}"
            return Conflict(f"conflict: unable to delete {image} (cannot be forced) - {words}")
    if facts.force:
        return None
    if names_count:
        words = "image is referenced in multiple repositories"
        return Conflict(f"conflict: unable to delete {image} (must be forced) - {words}")
    if facts.users and not ignore_stopped:
        words = f"image is being used by stopped container {facts.users[0].id[:12]}"
        return Conflict(f"conflict: unable to delete {image} (must be forced) - {words}")
    return None


def _single(names: Sequence[Reference]) -> bool:
    """Report whether there is at most one tag, and all names are in one repository."""
    tags = [name for name in names if name.digest is None]
    return len(tags) <= 1 and len({name.name for name in names}) <= 1


def _short(image: Image) -> str:
    return image.id.removeprefix("sha256:")[:12]

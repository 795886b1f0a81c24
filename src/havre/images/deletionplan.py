"""Removing an image: docker's rules, as a plan.

    by name   one name of several          untag only
              its last name                untag, delete the image (unless a container uses it)
              its last tag in a repository the repository's digests go too
    by ID     names in one repository      untag them, delete the image
              names in several             409, unless forced

A running container that uses the image stands in the way of deleting it, even by force; a stopped one only without.
Removing its last name by force succeeds anyhow; the image then stays as long as a running container uses it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from havre.errors import Conflict
from havre.images.store import Image
from havre.images.summaries import ImageUser
from havre.oci.reference import Reference
from havre.wire.values import Value


class RemovedItem(Value, omit_defaults=True):
    """One line of the answer: a name that is gone, or the ID of an image or layer chain that is."""

    untagged: str = ""
    deleted: str = ""


@dataclass(frozen=True, slots=True)
class RemovalFacts:
    """What the decision rests on. `by_name` is the name given, None when the image was given by its ID."""

    image: Image
    names: Sequence[Reference]
    users: Sequence[ImageUser]
    has_children: bool
    by_name: Reference | None
    force: bool


@dataclass(frozen=True, slots=True)
class RemovalPlan:
    """What to do: names to remove, in order, and whether the image goes too."""

    untag: tuple[Reference, ...]
    delete: bool


def plan_removal(facts: RemovalFacts) -> RemovalPlan:
    """Decide; raises `Conflict` in Docker's words."""
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
    """What stands in the way of deleting the image itself, the hardest first."""
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
    """Whether there is at most one tag, and every digest is of its repository."""
    tags = [name for name in names if name.digest is None]
    return len(tags) <= 1 and len({name.name for name in names}) <= 1


def _short(image: Image) -> str:
    return image.id.removeprefix("sha256:")[:12]

"""Images as Docker shows them: list with filters, details, history. Pure.

Sizes are of the uncompressed layers. A layer is shared if another stored image has it, too.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Protocol

import msgspec
from msgspec import UNSET, UnsetType

from havre.errors import Failed, InvalidInput
from havre.golang.times import parse_civil
from havre.images.catalog import Image
from havre.images.documents import labels_of, read_config
from havre.oci.digest import Digest
from havre.oci.platform import Platform
from havre.oci.reference import Reference
from havre.wire.config import OMITTED_OF_CONFIG, OMITTED_OF_IMAGES, OWN_OF_CONTAINERS, Config
from havre.wire.filters import Filters, boolean, check_keys, matches_labels
from havre.wire.images import (
    GraphDriver,
    HistoryItem,
    Identity,
    ImageDetails,
    ImageSummary,
    PullIdentity,
    RootFs,
)
from havre.wire.queries import parse_time
from havre.wire.times import from_seconds
from havre.wire.values import ZERO_TIME, ImageId, without_empty

LIST_FILTERS = frozenset({"dangling", "label", "label!", "before", "since", "reference", "until"})
PRUNE_FILTERS = frozenset({"dangling", "label", "label!", "until"})


class RunImage(msgspec.Struct, frozen=True):
    """What a container is made from: the image's ID, its defaults, its layers (base first), its platform."""

    id: ImageId
    config: Config
    layers: tuple[Digest, ...]
    platform: Platform


class ImageUser(msgspec.Struct, frozen=True):
    """A container made from an image."""

    id: str
    running: bool


class Publish(Protocol):
    """Publishes an event of the event bus."""

    def __call__(self, type: str, action: str, id: str, attributes: Mapping[str, str] | None = None) -> None: ...


Sizes = Callable[[Digest], int]
Names = Mapping[ImageId, Sequence[Reference]]


def image_config(image: Image) -> Config:
    """The image's container defaults. Raises `InvalidInput`."""
    return read_config(image.config, image.id)


def event_attributes(image: Image, name: str) -> dict[str, str]:
    """An event's attributes: the image's labels and the name."""
    return {**(labels_of(image.config) or {}), "name": name}


def moment(created: str | None) -> float:
    """RFC 3339 text (a missing zone means UTC) as seconds since the epoch; 0 if it is absent or no time."""
    try:
        seconds, nanoseconds, offset_s = parse_civil(created or "")
    except ValueError:  # foreign text
        return 0.0
    return seconds - (offset_s or 0) + nanoseconds / 1e9


def seconds(created: str | None) -> int:
    """As `moment`, in whole seconds."""
    return int(moment(created))


def size_of(image: Image, sizes: Sizes) -> int:
    """Bytes of all layers of the image."""
    return sum(sizes(layer) for layer in image.layers)


def shared_layers(layers: Iterable[Collection[Digest]]) -> set[Digest]:
    """The layers that more than one image has, given the layers of each."""
    seen: set[Digest] = set()
    shared: set[Digest] = set()
    for mine in map(set, layers):
        shared |= mine & seen
        seen |= mine
    return shared


def summarize(image: Image, names: Sequence[Reference], size: int) -> ImageSummary:
    """The row of one image; `size` in bytes, of all platforms of its names."""
    labels = labels_of(image.config)
    return ImageSummary(
        id=image.id,
        parent_id=image.row.parent,
        repo_tags=[name.familiar() for name in names if name.digest is None],
        repo_digests=[name.familiar() for name in names if name.digest is not None],
        created=seconds(image.config.created),
        size=size,
        labels=None if labels is None else dict(labels),
    )


def describe(image: Image, names: Sequence[Reference], sizes: Sizes, driver: str) -> ImageDetails:
    """The details of one image."""
    config = image.config
    tagged_at = image.row.last_tagged_at
    return ImageDetails(
        id=image.id,
        repo_tags=[name.familiar() for name in names if name.digest is None],
        repo_digests=[name.familiar() for name in names if name.digest is not None],
        parent=image.row.parent or UNSET,
        comment=config.comment or (config.history[-1].comment if config.history else "") or UNSET,
        created=config.created or UNSET,
        docker_version=config.docker_version or UNSET,
        author=config.author or UNSET,
        config=_shown_config(image),
        architecture=config.architecture,
        variant=config.variant or UNSET,
        os=config.platform.os,
        size=size_of(image, sizes),
        graph_driver=GraphDriver(name=driver),
        root_fs=RootFs(type="layers", layers=list(image.layers)),
        metadata={"LastTagTime": from_seconds(tagged_at) if tagged_at else ZERO_TIME},
        identity=identify(names),
    )


def _shown_config(image: Image) -> Config:
    """The defaults of an image, without what only containers have."""
    config = msgspec.structs.replace(image_config(image), **dict.fromkeys(OWN_OF_CONTAINERS, UNSET))
    return without_empty(config, (*OMITTED_OF_CONFIG, *OMITTED_OF_IMAGES))


def identify(names: Sequence[Reference]) -> Identity | UnsetType:
    """Where an image came from: the repositories that it was pulled from or pushed to; UNSET if there are none.

    A name with a digest comes from a registry alone.
    """
    repositories = dict.fromkeys(name.name for name in names if name.digest is not None)
    return Identity(pull=[PullIdentity(repository=each) for each in repositories]) if repositories else UNSET


def recount(image: Image, names: Sequence[Reference], sizes: Sizes) -> list[HistoryItem]:
    """The history of an image, newest first; only the newest step has the image's ID and names."""
    layers = list(image.layers)
    items = []
    for step in image.config.history or ():
        layer = layers.pop(0) if layers and not step.empty_layer else None
        items.append(
            HistoryItem(
                id="<missing>",
                created=seconds(step.created),
                created_by=step.created_by,
                tags=None,
                size=sizes(layer) if layer else 0,
                comment=step.comment,
            )
        )
    items.reverse()
    if items:
        items[0].id = image.id
        items[0].tags = [name.familiar() for name in names if name.digest is None]
    return items


def is_dangling(names: Sequence[Reference]) -> bool:
    """Report whether an image has no tag."""
    return all(name.tag is None for name in names)


def select(
    images: Sequence[Image], names: Names, filters: Filters, find: Callable[[str], Image], now: float | None = None
) -> list[Image]:
    """The images that match the filters, newest first; `find` resolves the names in `before` and `since`."""
    older = [moment(find(name).config.created) for name in filters.get("before", ())]
    newer = [moment(find(name).config.created) for name in filters.get("since", ())]
    until = [parse_moment(text, time.time() if now is None else now) for text in filters.get("until", ())]
    wanted_dangling = dangling(filters)
    patterns = [glob(text) for text in filters.get("reference", ())]

    def passes(image: Image) -> bool:
        created = moment(image.config.created)
        mine = names.get(image.id, ())
        return (
            all(created < bound for bound in (*older, *until))
            and all(created > bound for bound in newer)
            and (wanted_dangling is not True or is_dangling(mine))
            and (wanted_dangling is not False or bool(mine))
            and matches_labels(filters, labels_of(image.config))
            and (not patterns or any(matches_reference(pattern, name) for pattern in patterns for name in mine))
        )

    return sorted(filter(passes, images), key=lambda image: moment(image.config.created), reverse=True)


def names_shown(names: Sequence[Reference], filters: Filters) -> Sequence[Reference]:
    """The names of an image that a row shows: with a `reference` filter only those that match."""
    patterns = [glob(text) for text in filters.get("reference", ())]
    return [name for name in names if any(matches_reference(p, name) for p in patterns)] if patterns else names


def matches_reference(pattern: re.Pattern[str], name: Reference) -> bool:
    """Report whether a `reference` filter matches the name, with or without its tag, short or in full."""
    return any(pattern.fullmatch(text) for text in (name.familiar(), name.familiar_name, name.canonical(), name.name))


def parse_moment(text: str, now: float) -> float:
    """The `until` filter's time as seconds since the epoch, as `wire.queries.parse_time`, in dockerd's words."""
    try:
        return parse_time(text, "until", now)
    except InvalidInput:
        raise Failed(f'failed to parse value as time or duration: "{text}"') from None


def dangling(filters: Filters) -> bool | None:
    values = filters.get("dangling", ())
    try:
        return boolean(filters, "dangling")
    except InvalidInput:
        raise InvalidInput(f"invalid filter 'dangling=[{' '.join(values)}]'") from None


def glob(pattern: str) -> re.Pattern[str]:
    """Go's path.Match: `*` and `?` stay within a path component, `[a-c]` and `[^a-c]` are classes."""
    out, at = [], 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "[":
            end = pattern.find("]", at + 1)
            if end < 0:
                raise Failed("syntax error in pattern", f"in the reference filter {pattern!r}")
            negated = pattern[at] == "^"
            body = re.sub(r"[][\\^&|~]|(?<=-)-", r"\\\g<0>", pattern[at + negated : end])
            out.append(f"[{'^' if negated else ''}{body}]")
            at = end + 1
        elif char == "\\" and at < len(pattern):
            out.append(re.escape(pattern[at]))
            at += 1
        else:
            out.append({"*": "[^/]*", "?": "[^/]"}.get(char) or re.escape(char))
    try:
        return re.compile("".join(out))
    except re.error:
        raise Failed("syntax error in pattern", f"in the reference filter {pattern!r}") from None


def check_list_filters(filters: Filters) -> None:
    """Refuse unknown keys of the list's filters."""
    check_keys(filters, LIST_FILTERS)


def check_prune_filters(filters: Filters) -> None:
    """Refuse unknown keys of prune's filters."""
    check_keys(filters, PRUNE_FILTERS)

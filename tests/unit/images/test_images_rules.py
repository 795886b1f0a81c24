"""Docker's rules for images as plans and filters, by value: removal, listing, Dockerfile changes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from havre.errors import Conflict, Failed, HavreError, InvalidInput, NotFound
from havre.images.catalog import Image, ImageRow
from havre.images.deletionplan import RemovalFacts, RemovalPlan, plan_removal
from havre.images.summaries import ImageUser, matches_reference, parse_moment, select
from havre.images.summaries import glob as compile_glob
from havre.oci.digest import digest_of
from havre.oci.image import decode_image
from havre.oci.reference import Reference, parse_reference
from havre.wire.values import ImageId
from support.imagery import config_of

DIGEST = digest_of(b"manifest")
CONTAINER = "46cdc6e9c712767e081d8435f788a426ca3ba4cc3efe656222e0de60d976b366"


def image(created: str = "2026-01-02T03:04:05Z", **labels: str) -> Image:
    body = config_of(created=created, Labels=labels)
    return Image(ImageId(digest_of(body)), decode_image(body), ImageRow(added_at=0.0))


def refs(*names: str) -> list[Reference]:
    return [parse_reference(name) for name in names]


def plan(
    names: Sequence[str], by: str | None, *, running: bool | None = None, force: bool = False, children: bool = False
) -> RemovalPlan:
    users = () if running is None else (ImageUser(CONTAINER, running),)
    return plan_removal(
        RemovalFacts(image(), refs(*names), users, children, parse_reference(by) if by else None, force)
    )


@pytest.mark.parametrize(
    ("names", "by", "force", "running", "untagged", "delete"),
    [
        (["x:1"], "x:1", False, None, ["x:1"], True),
        (["x:1", "x:2"], "x:1", False, None, ["x:1"], False),
        (["x:1", f"x@{DIGEST}"], "x:1", False, None, ["x:1", f"x@{DIGEST}"], True),
        (["x:1", "y:1", f"x@{DIGEST}", f"y@{DIGEST}"], "x:1", False, None, ["x:1", f"x@{DIGEST}"], False),
        (["x:1", f"x@{DIGEST}"], f"x@{DIGEST}", False, None, [f"x@{DIGEST}"], False),
        (["x:1", "y:1"], "x:1", False, True, ["x:1"], False),
        (["x:1"], "x:1", True, False, ["x:1"], True),
        (["x:1"], "x:1", True, True, ["x:1"], False),
        (["x:1"], None, False, None, ["x:1"], True),
        (["x:1", "y:1"], None, True, None, ["x:1", "y:1"], True),
        (["x:1"], None, True, False, ["x:1"], True),
        ([], None, False, None, [], True),
    ],
)
def test_removal(
    names: list[str], by: str | None, force: bool, running: bool | None, untagged: list[str], delete: bool
) -> None:
    assert plan(names, by, force=force, running=running) == RemovalPlan(tuple(refs(*untagged)), delete)


@pytest.mark.parametrize(
    ("names", "by", "force", "running", "words"),
    [
        (["x:1"], "x:1", False, False,
         'conflict: unable to remove repository reference "x:1" (must force) - container 46cdc6e9c712 is using its'
         " referenced image ID"),
        (["x:1", "x:2"], None, False, None,
         "conflict: unable to delete ID (must be forced) - image is referenced in multiple repositories"),
        (["x:1"], None, False, False,
         "conflict: unable to delete ID (must be forced) - image is being used by stopped container 46cdc6e9c712"),
        (["x:1"], None, True, True,
         "conflict: unable to delete ID (cannot be forced) - image is being used by running container 46cdc6e9c712"),
    ],
)  # fmt: skip
def test_removal_refused(names: list[str], by: str | None, force: bool, running: bool | None, words: str) -> None:
    with pytest.raises(Conflict) as refusal:
        plan(names, by, force=force, running=running)
    assert refusal.value.message == words.replace("ID", image().id[7:19])


def test_removal_of_a_parent_is_refused() -> None:
    with pytest.raises(Conflict, match=r"\(cannot be forced\) - image has dependent child images"):
        plan(["x:1"], None, force=True, children=True)


OLD, NEW, BARE = (
    image("2025-01-01T00:00:00Z", tier="a"),
    image("2026-01-01T00:00:00Z", tier="b"),
    image("2024-01-01T00:00:00Z"),
)
NAMES = {OLD.id: refs("old:1", "host:5000/a/b:2"), NEW.id: refs(f"new@{DIGEST}"), BARE.id: refs()}


def find(name: str) -> Image:
    for one, names in NAMES.items():
        if parse_reference(name).with_default_tag() in names:
            return next(image for image in (OLD, NEW, BARE) if image.id == one)
    raise NotFound(f"No such image: {name}:latest")


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, [NEW, OLD, BARE]),
        ({"dangling": ["true"]}, [NEW, BARE]),
        ({"dangling": ["false"]}, [NEW, OLD]),
        ({"label": ["tier"]}, [NEW, OLD]),
        ({"label": ["tier=a"]}, [OLD]),
        ({"label!": ["tier=a"]}, [NEW, BARE]),
        ({"before": ["old:1"]}, [BARE]),
        ({"since": ["old:1"]}, [NEW]),
        ({"until": ["2025-06-01"]}, [OLD, BARE]),
        ({"until": ["24h"]}, [OLD, BARE]),
        ({"reference": ["old"]}, [OLD]),
        ({"reference": ["o*:1"]}, [OLD]),
        ({"reference": ["host:5000/*"]}, []),
        ({"reference": ["host:5000/*/*", "new"]}, [NEW, OLD]),
    ],
)
def test_list_filters(filters: dict[str, list[str]], found: list[Image]) -> None:
    assert select([OLD, NEW, BARE], NAMES, filters, find, now=1767225600 + 3600) == found


@pytest.mark.parametrize(
    ("filters", "error", "words"),
    [
        ({"dangling": ["x"]}, InvalidInput, r"invalid filter 'dangling=\[x\]'"),
        ({"before": ["nope"]}, NotFound, "No such image: nope:latest"),
        ({"until": ["nope"]}, Failed, 'failed to parse value as time or duration: "nope"'),
        ({"reference": ["[one"]}, Failed, "syntax error in pattern"),
    ],
)
def test_list_filters_refused(filters: dict[str, list[str]], error: type[HavreError], words: str) -> None:
    with pytest.raises(error, match=words):
        select([OLD], NAMES, filters, find)


@pytest.mark.parametrize("pattern", ["a/b", "a/?:*", "*/*:v[0-9].*", "a/b:v[^a-z].2", r"a/\b"])
def test_patterns_are_gos(pattern: str) -> None:
    assert matches_reference(compile_glob(pattern), parse_reference("a/b:v1.2"))


@pytest.mark.parametrize("pattern", ["a*", "b", "a/b:v", "a/[^b]"])
def test_patterns_stay_within_a_component(pattern: str) -> None:
    assert not matches_reference(compile_glob(pattern), parse_reference("a/b:v1.2"))


def test_moments() -> None:
    assert parse_moment("1h30m", 10_000.0) == 10_000.0 - 5400
    assert parse_moment("12.5", 0.0) == 12.5
    assert parse_moment("1970-01-01T00:01:00.123456789Z", 0.0) == pytest.approx(60.123456)
    assert parse_moment("1970-01-01T01:00:00+01:00", 0.0) == 0.0

"""Docker's rules for images as plans and filters, by value: removal, listing, Dockerfile changes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from havre.errors import Conflict, Failed, HavreError, InvalidInput, NotFound
from havre.images.changes import apply_changes
from havre.images.deletionplan import RemovalFacts, RemovalPlan, plan_removal
from havre.images.store import Image, ImageRow
from havre.images.summaries import ImageUser, matches_reference, parse_moment, select
from havre.images.summaries import glob as compile_glob
from havre.oci.digest import digest_of
from havre.oci.image import decode_image
from havre.oci.reference import Reference, parse_reference
from havre.wire.config import Config
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


@pytest.mark.parametrize(
    ("change", "field", "value"),
    [
        ('CMD ["a", "b c"]', "cmd", ["a", "b c"]),
        ("cmd echo hi", "cmd", ["/bin/sh", "-c", "echo hi"]),
        ('ENTRYPOINT ["/x"]', "entrypoint", ["/x"]),
        ("ENV A=1 B=\"2 3\" C='x\\y'", "env", ["A=1", "B=2 3", "C=x\\y"]),
        ("ENV A some words", "env", ["A=some words"]),
        ("EXPOSE 80 53/udp 90-91", "exposed_ports", {"80/tcp": {}, "53/udp": {}, "90/tcp": {}, "91/tcp": {}}),
        ("LABEL a=b c", None, None),
        ('LABEL a="b c"', "labels", {"a": "b c"}),
        ("USER 1:1", "user", "1:1"),
        ("WORKDIR a/../b", "working_dir", "/b"),
        ('VOLUME ["/a", "/b c"]', "volumes", {"/a": {}, "/b c": {}}),
        ("VOLUME /a /b", "volumes", {"/a": {}, "/b": {}}),
        ("STOPSIGNAL SIGINT", "stop_signal", "SIGINT"),
        ("ONBUILD RUN x", "on_build", ["RUN x"]),
        ("ONBUILD FROM x", None, None),
        ("FROM x", None, None),
        ("BOGUS x", None, None),
        ("CMD", None, None),
        ("EXPOSE 70000", None, None),
        ("ENV A", None, None),
        ('LABEL a="b', None, None),
    ],
)
def test_changes(change: str, field: str | None, value: object) -> None:
    if field is None:
        with pytest.raises(InvalidInput):
            apply_changes(Config(), [change])
    else:
        assert getattr(apply_changes(Config(), [change]), field) == value


def test_changes_build_on_each_other() -> None:
    config = apply_changes(Config(env=["A=1", "B=2"]), ["ENV A=3\nWORKDIR /x", "WORKDIR y", "# nothing"])
    assert (config.env, config.working_dir) == (["A=3", "B=2"], "/x/y")


def test_health_check() -> None:
    config = apply_changes(Config(), ["HEALTHCHECK --interval=1m30s --retries=3 CMD curl -f x"])
    assert config.healthcheck is not None
    assert config.healthcheck.test == ["CMD-SHELL", "curl -f x"]
    assert (config.healthcheck.interval, config.healthcheck.retries) == (90_000_000_000, 3)
    assert apply_changes(config, ["HEALTHCHECK NONE"]).healthcheck.test == ["NONE"]  # type: ignore[union-attr]
    with pytest.raises(InvalidInput):
        apply_changes(config, ["HEALTHCHECK --retries=x CMD y"])
    with pytest.raises(InvalidInput, match="cannot be less than 1ms"):
        apply_changes(config, ["HEALTHCHECK --interval=0.5ms CMD y"])


def test_protocols_of_ports_have_any_case() -> None:
    assert apply_changes(Config(), ["EXPOSE 80/TCP 53/Udp"]).exposed_ports == {"80/tcp": {}, "53/udp": {}}


@pytest.mark.parametrize(
    ("change", "field", "value"),
    [
        ("ENV PATH=/x:$PATH", "env", ["PATH=/x:/bin", "HOME=/h"]),
        ("ENV PATH /x:${PATH}", "env", ["PATH=/x:/bin", "HOME=/h"]),
        ("ENV HOME='$PATH'", "env", ["PATH=/bin", "HOME=$PATH"]),
        ("LABEL a=${NONE:-b}\\$HOME", "labels", {"a": "b$HOME"}),
        ("WORKDIR $HOME/a", "working_dir", "/h/a"),
        ("USER ${NONE:-u}", "user", "u"),
        ("EXPOSE ${NONE:-80}", "exposed_ports", {"80/tcp": {}}),
        ("VOLUME $HOME '/b c'", "volumes", {"/h": {}, "/b c": {}}),
        ("CMD echo $HOME", "cmd", ["/bin/sh", "-c", "echo $HOME"]),
        ("ENV HOME=/i\nWORKDIR $HOME", "working_dir", "/i"),
    ],
)
def test_changes_know_the_environment(change: str, field: str, value: object) -> None:
    assert getattr(apply_changes(Config(env=["PATH=/bin", "HOME=/h"]), [change]), field) == value

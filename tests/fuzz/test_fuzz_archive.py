"""Damaged and hostile archives, Dockerfile changes and patterns: an error in words, and nothing left behind."""

from __future__ import annotations

import asyncio
import gzip
import json
import tempfile
from contextlib import suppress
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from havre.dockerfile.changes import apply_changes
from havre.errors import HavreError
from havre.images.summaries import glob, matches_reference, parse_moment
from havre.oci.reference import parse_reference
from havre.wire.config import Config
from support.imagery import archive, config_of, layer_tar, staged, stream

LAYER = layer_tar("file")
GOOD = archive(
    {
        "l.tar": LAYER,
        "c.json": config_of(LAYER),
        "manifest.json": json.dumps([{"Config": "c.json", "RepoTags": ["x:1"], "Layers": ["l.tar"]}]).encode(),
    }
)
DESCRIPTION = st.recursive(
    st.none() | st.integers() | st.sampled_from(["c.json", "l.tar", "../x", "x:1", "", "manifest.json"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["Config", "RepoTags", "Layers", "manifests", "schemaVersion"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)


def load(data: bytes) -> None:
    async def work() -> None:
        with tempfile.TemporaryDirectory() as root:
            async with staged(Path(root)) as stage:
                try:
                    await stage.images.load(stream(data, 4000))
                except HavreError:
                    assert stage.images.list() == []
                    assert stage.storage.layers.all() == []
                assert await stage.storage.unfinished() == []
                assert stage.storage.held() == set()

    asyncio.run(asyncio.wait_for(work(), 20))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=40), st.booleans())
def test_damaged(at: int, patch: bytes, packed: bool) -> None:
    data = gzip.compress(GOOD) if packed else GOOD
    at %= len(data)
    load(data[:at] + patch + data[at + len(patch) :])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, len(GOOD)))
def test_cut_short(at: int) -> None:
    load(GOOD[:at])


@settings(max_examples=60, deadline=None)
@given(DESCRIPTION, st.sampled_from(["manifest.json", "index.json"]))
def test_lying_description(description: object, name: str) -> None:
    load(archive({"l.tar": LAYER, "c.json": config_of(LAYER), name: json.dumps(description).encode()}))


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["CMD", "ENV", "EXPOSE", "LABEL", "HEALTHCHECK", "VOLUME", "WORKDIR", "ONBUILD", "x"]), st.text()
)
def test_changes(name: str, argument: str) -> None:
    with suppress(HavreError):
        apply_changes(Config(), [f"{name} {argument}"])


@settings(max_examples=300, deadline=None)
@given(st.text("ab*?[]^-\\/.:", max_size=12) | st.text(max_size=12))
def test_patterns_and_moments(text: str) -> None:
    for parse in (lambda: matches_reference(glob(text), parse_reference("a/b:1")), lambda: parse_moment(text, 0.0)):
        with suppress(HavreError):
            parse()

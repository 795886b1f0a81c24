"""Hostile names, manifests, configurations and challenges: refused in words or read, never a crash."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from havre.errors import InvalidInput, Unsupported
from havre.oci.attestation import Attested, Predicate, attest, restate
from havre.oci.digest import digest_of
from havre.oci.image import decode_image
from havre.oci.manifest import MAX_BLOB, Manifest, decode_document
from havre.oci.platform import Platform
from havre.oci.reference import parse_reference
from havre.registry.auth import parse_challenges

NAMES = st.text("aA0._-/:@[] \n", max_size=40) | st.text(max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)
DESCRIPTOR = st.fixed_dictionaries(
    {
        "mediaType": st.text(max_size=10),
        "digest": st.just(digest_of(b"")) | st.text(max_size=72),
        "size": st.integers(),
    },
    optional={"urls": JSON, "platform": JSON, "annotations": JSON},
)
DOCUMENT = st.fixed_dictionaries(
    {},
    optional={
        "schemaVersion": st.sampled_from([1, 2]) | JSON,
        "mediaType": st.text(max_size=10),
        "config": DESCRIPTOR | JSON,
        "layers": st.lists(DESCRIPTOR, max_size=3) | JSON,
        "manifests": st.lists(DESCRIPTOR, max_size=3) | JSON,
        "fsLayers": JSON,
    },
)


@settings(max_examples=300, deadline=None)
@given(NAMES)
def test_names(text: str) -> None:
    try:
        ref = parse_reference(text)
    except InvalidInput:
        return
    assert parse_reference(ref.canonical()) == ref
    assert parse_reference(ref.familiar()) == ref
    assert ".." not in ref.repository.split("/")
    assert ref.canonical().isprintable()


@settings(max_examples=300, deadline=None)
@given(DOCUMENT.map(lambda document: json.dumps(document).encode()) | st.binary(max_size=200))
def test_manifests(body: bytes) -> None:
    try:
        document = decode_document(body)
    except (InvalidInput, Unsupported):
        return
    entries = (document.config, *document.layers) if isinstance(document, Manifest) else document.manifests
    assert all(0 <= entry.size <= MAX_BLOB and len(entry.digest) == 71 for entry in entries)


@settings(max_examples=200, deadline=None)
@given(
    st.fixed_dictionaries({}, optional={"rootfs": JSON, "history": JSON, "config": JSON, "os": JSON, "created": JSON})
)
def test_configurations(document: dict[str, Any]) -> None:
    try:
        image = decode_image(json.dumps(document).encode())
    except InvalidInput:
        return
    assert all(len(diff_id) == 71 for diff_id in image.rootfs.diff_ids)


@settings(max_examples=300, deadline=None)
@given(st.text('Bearer realm="x\\,=', max_size=60) | st.text(max_size=40))
def test_challenges(header: str) -> None:
    try:
        challenges = parse_challenges(header)
    except InvalidInput:
        return
    assert all(challenge.scheme == challenge.scheme.lower() for challenge in challenges)


STATEMENT = st.fixed_dictionaries(
    {
        "_type": st.text(max_size=5),
        "predicateType": st.text(max_size=5),
        "predicate": JSON,
        "subject": st.lists(st.dictionaries(st.sampled_from(["name", "digest"]), JSON), max_size=3) | JSON,
    }
)


@settings(max_examples=300, deadline=None)
@given(STATEMENT.map(lambda document: json.dumps(document).encode()) | st.binary(max_size=200))
def test_statements(body: bytes) -> None:
    """Said again of another manifest, a statement says the same; what is none is left out."""
    known = attest(digest_of(b"old"), Platform("amd64", "linux"), (), [Predicate("p", b"{}")])
    found = restate(Attested(known.manifest, (body, *known.documents[1:])), digest_of(b"new"))
    if found is None:
        return
    before, after = json.loads(body), json.loads(found.documents[0])
    assert after | {"subject": []} == before | {"subject": []}
    assert len(after["subject"]) == len(before["subject"])
    assert digest_of(found.documents[-1]) == found.manifest.digest

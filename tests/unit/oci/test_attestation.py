"""Statements about an image that gets another manifest: what is said, of whom, and what cannot be said again."""

from __future__ import annotations

import json

import msgspec
import pytest

from havre.oci.attestation import Attested, Predicate, attest, restate, subject_of
from havre.oci.digest import Digest, digest_of
from havre.oci.platform import Platform
from havre.oci.reference import parse_reference

_OLD, _NEW = digest_of(b"old"), digest_of(b"new")
_SAID = Predicate("https://example.org/said/v1", b'{"b": [1,  2], "a": "\\u00e9"}')


def attested(*predicates: Predicate) -> Attested:
    return attest(_OLD, Platform("amd64", "linux"), [parse_reference("a/b:1")], predicates)


def with_statement(document: bytes) -> Attested:
    """An attestation that consists of one document of somebody else's."""
    found = attested(_SAID)
    return Attested(found.manifest, (document, *found.documents[1:]))


def test_of_the_same_manifest_nothing_changes() -> None:
    assert restate(attested(_SAID), _OLD) == attested(_SAID)


def test_what_is_said_stays_as_it_is_written() -> None:
    found = restate(attested(_SAID, Predicate("https://example.org/more/v1", b"1e400")), _NEW)
    assert found is not None
    assert subject_of(found.manifest) == _NEW
    *statements, config, manifest = found.documents
    assert digest_of(manifest) == found.manifest.digest
    assert [_SAID.document in statements[0], b"1e400" in statements[1]] == [True, True]
    layers = json.loads(manifest)["layers"]
    assert [layer["digest"] for layer in layers] == list(map(digest_of, statements))
    assert [layer["annotations"]["in-toto.io/predicate-type"] for layer in layers] == [
        _SAID.type,
        "https://example.org/more/v1",
    ]
    assert json.loads(config)["rootfs"]["diff_ids"] == list(map(digest_of, statements))
    again = restate(found, _OLD)
    assert again is not None
    assert restate(again, _NEW) == found


def test_other_subjects_stay() -> None:
    """A statement may be about more than the image, and by another algorithm."""
    subjects = [{"name": "image", "digest": {"sha256": _OLD[7:]}}, {"name": "file", "digest": {"sha512": "00"}}]
    statement = {"_type": "t", "predicateType": "p", "subject": subjects, "predicate": None}
    found = restate(with_statement(msgspec.json.encode(statement)), _NEW)
    assert found is not None
    assert json.loads(found.documents[0])["subject"] == [subjects[0] | {"digest": {"sha256": _NEW[7:]}}, subjects[1]]


@pytest.mark.parametrize(
    "document",
    [
        b'{"payloadType": "application/vnd.in-toto+json", "payload": "e30=", "signatures": []}',
        b'{"_type": "t", "predicateType": "p", "subject": "all", "predicate": {}}',
        b'{"_type": "t", "predicateType": "p", "subject": [], "predicate": ' + b"[" * 100_000,
        b'{"_type": "\xff", "predicateType": "p", "subject": [], "predicate": {}}',
        b"\x00",
    ],
)
def test_what_is_no_plain_statement_is_not_said_again(document: bytes) -> None:
    assert restate(with_statement(document), Digest(_NEW)) is None

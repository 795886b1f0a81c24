"""Attestations: in-toto statements in a manifest beside the image's own, in an index of both. Pure.

    index --> manifest of the image           platform linux/amd64
          '-> manifest of its attestations    platform unknown/unknown, annotated with the digest of the other
                '-> layers, one for each statement: the image's digest, the type of the predicate, the predicate

Readers without support for attestations choose by platform and see only the image. A statement refers to a manifest;
when the image gets a new manifest (by other compression), the statement is rewritten for it, with the predicate
unchanged.

Source: moby/buildkit docs/attestations/attestation-storage.md; in-toto attestations v0.1; package URLs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import msgspec

from havre.oci import mediatypes
from havre.oci.digest import Digest, digest_of, hex_of
from havre.oci.manifest import Descriptor, describe, render_manifest
from havre.oci.platform import Platform
from havre.oci.reference import Reference

PROVENANCE, PROVENANCE_V1 = "https://slsa.dev/provenance/v0.2", "https://slsa.dev/provenance/v1"
MAX_ATTESTED = 64 << 20
"""Maximum bytes of an image's attestations; lists of packages may have some megabytes."""
SPDX = "https://spdx.dev/Document"
_STATEMENT = "https://in-toto.io/Statement/v0.1"
_IN_TOTO = "application/vnd.in-toto+json"
_PREDICATE_TYPE = "in-toto.io/predicate-type"
_SUBJECT, _TYPE, _ATTESTATION = "vnd.docker.reference.digest", "vnd.docker.reference.type", "attestation-manifest"


class Predicate(msgspec.Struct, frozen=True, rename="pascal"):
    """A predicate about an image: `type` is the format of `document`, JSON. In JSON itself, bytes are base64."""

    type: str
    document: bytes


@dataclass(frozen=True)
class Attested:
    """An index's entry of an image's attestations, and the documents that it refers to: their manifest is last."""

    manifest: Descriptor
    documents: tuple[bytes, ...]


class _Statement(msgspec.Struct, rename="camel"):
    """A decoded statement; the predicate stays unparsed."""

    type: str = msgspec.field(name="_type")
    predicate_type: str
    predicate: msgspec.Raw
    subject: list[dict[str, Any]]


def is_attestation(entry: Descriptor) -> bool:
    """Report whether an index's entry is an attestation rather than an image."""
    return (entry.annotations or {}).get(_TYPE) == _ATTESTATION


def subject_of(entry: Descriptor) -> Digest | None:
    """The manifest that an index's entry attests; None if it is not an attestation."""
    return Digest((entry.annotations or {}).get(_SUBJECT, "")) if is_attestation(entry) else None


def predicate_type_of(layer: Descriptor) -> str:
    """The type of the predicate of a statement in an attestation's manifest; "" if the layer is not a statement."""
    return (layer.annotations or {}).get(_PREDICATE_TYPE, "")


def attest(image: Digest, platform: Platform, names: Sequence[Reference], predicates: Sequence[Predicate]) -> Attested:
    """Create statements that the predicates apply to the image with this manifest, one layer for each, in order."""
    subjects = _subjects(image, platform, names)
    return _assemble(image, [(each.type, _render_statement(subjects, each)) for each in predicates])


def restate(attested: Attested, image: Digest) -> Attested | None:
    """The same statements for the image's present manifest; None if there is no plain statement.

    Signed ones are dropped: their signers have not seen this manifest.
    """
    before = subject_of(attested.manifest)
    if before is None or before == image:
        return attested
    old, new = {"sha256": hex_of(before)}, {"sha256": hex_of(image)}
    statements = []
    for document in attested.documents:
        try:
            statement = msgspec.json.decode(document, type=_Statement)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue  # the manifest, the configuration, a signed envelope
        about = [each | {"digest": new} if each.get("digest") == old else each for each in statement.subject]
        statements.append((statement.predicate_type, _encode(msgspec.structs.replace(statement, subject=about))))
    return _assemble(image, statements) if statements else None


def _assemble(image: Digest, statements: Sequence[tuple[str, bytes]]) -> Attested:
    """The attestation manifest of an image: statements by the types of their predicates."""
    documents = [document for _, document in statements]
    config = _encode(
        {
            "architecture": "unknown",
            "os": "unknown",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(document) for document in documents]},
        }
    )
    layers = [
        msgspec.structs.replace(describe(_IN_TOTO, document), annotations={_PREDICATE_TYPE: type})
        for type, document in statements
    ]
    body = render_manifest(describe(mediatypes.OCI_CONFIG, config), layers, mediatypes.OCI_MANIFEST)
    marked = msgspec.structs.replace(
        describe(mediatypes.OCI_MANIFEST, body),
        platform=Platform("unknown", "unknown"),
        annotations={
            _SUBJECT: image,
            _TYPE: _ATTESTATION,
        },
    )
    return Attested(marked, (*documents, config, body))


def _render_statement(subjects: Sequence[Mapping[str, Any]], predicate: Predicate) -> bytes:
    return _encode(
        {
            "_type": _STATEMENT,
            "predicateType": predicate.type,
            "subject": subjects,
            "predicate": msgspec.Raw(predicate.document),
        }
    )


def _subjects(digest: Digest, platform: Platform, names: Sequence[Reference]) -> list[dict[str, Any]]:
    """A statement's subjects: the image by each name, as a package URL; without names, by digest."""
    known = [package_url(name, platform) for name in names] or ["_"]
    return [{"name": name, "digest": {"sha256": hex_of(digest)}} for name in known]


def package_url(name: Reference, platform: Platform) -> str:
    """An image's package URL: `pkg:docker/busybox@1?platform=linux%2Famd64`, of its digest if the name has no tag."""
    version = name.tag or name.digest or ""
    qualifiers = [f"digest={name.digest}"] if name.digest and version != name.digest else []
    qualifiers.append(f"platform={quote(str(platform), safe='')}")
    path = quote(name.familiar_name, safe="/")
    return f"pkg:docker/{path}{f'@{version}' if version else ''}?{'&'.join(qualifiers)}"


def _encode(document: object) -> bytes:
    return msgspec.json.encode(document)

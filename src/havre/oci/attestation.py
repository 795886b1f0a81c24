"""What is attested of an image: in-toto statements in a manifest beside the image's own, in an index of the two.

    index --> manifest of the image           platform linux/amd64
          '-> manifest of its attestations    platform unknown/unknown, annotated with the digest of the other
                 '-> layers, one for each statement: the image's digest, the type of the predicate, the predicate

Readers that know nothing of this choose by platform and see the image alone. Pure.

Source: moby/buildkit docs/attestations/attestation-storage.md; in-toto attestations v0.1; SLSA provenance v0.2.
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

PROVENANCE = "https://slsa.dev/provenance/v0.2"
SPDX = "https://spdx.dev/Document"
_STATEMENT = "https://in-toto.io/Statement/v0.1"
_IN_TOTO = "application/vnd.in-toto+json"


class Predicate(msgspec.Struct, frozen=True, rename="pascal"):
    """What is said of an image: `type` tells how to read `document`, JSON. As JSON itself, bytes are base64."""

    type: str
    document: bytes


@dataclass(frozen=True)
class Attested:
    """What an index says of an image's attestations, and the documents that this leads to."""

    manifest: Descriptor
    documents: tuple[bytes, ...]


def attest(image: Digest, platform: Platform, names: Sequence[Reference], predicates: Sequence[Predicate]) -> Attested:
    """Statements that the predicates are true of the image with this manifest, a layer for each, in their order."""
    subjects = _subjects(image, platform, names)
    statements = [_render_statement(subjects, predicate) for predicate in predicates]
    config = _encode(
        {
            "architecture": "unknown",
            "os": "unknown",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(statement) for statement in statements]},
        }
    )
    layers = [
        msgspec.structs.replace(describe(_IN_TOTO, statement), annotations={"in-toto.io/predicate-type": each.type})
        for statement, each in zip(statements, predicates, strict=True)
    ]
    body = render_manifest(describe(mediatypes.OCI_CONFIG, config), layers, mediatypes.OCI_MANIFEST)
    marked = msgspec.structs.replace(
        describe(mediatypes.OCI_MANIFEST, body),
        platform=Platform("unknown", "unknown"),
        annotations={
            "vnd.docker.reference.digest": image,
            "vnd.docker.reference.type": "attestation-manifest",
        },
    )
    return Attested(marked, (*statements, config, body))


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
    """What a statement is about: the image by each of its names, as a package URL; without one, by its digest."""
    known = [package_url(name, platform) for name in names] or ["_"]
    return [{"name": name, "digest": {"sha256": hex_of(digest)}} for name in known]


def package_url(name: Reference, platform: Platform, digest: Digest | None = None) -> str:
    """An image's package URL: `pkg:docker/busybox@1?platform=linux%2Famd64`, of a digest if there is no tag."""
    version = name.tag or digest or name.digest or ""
    qualifiers = [f"digest={digest}"] if digest and version != digest else []
    qualifiers.append(f"platform={quote(str(platform), safe='')}")
    return f"pkg:docker/{name.familiar_name}{f'@{version}' if version else ''}?{'&'.join(qualifiers)}"


def _encode(document: object) -> bytes:
    return msgspec.json.encode(document)

"""Renders an inventory as an SPDX 2.3 document in JSON: the predicate of an SBOM attestation.

    document --DESCRIBES--> the file system --CONTAINS--> each package

Deterministic: identifiers are digests of names, the time is passed in.

Source: SPDX specification 2.3, clauses 6 to 11, and its JSON schema.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec

from havre.packages.licences import NONE, declare
from havre.packages.model import Inventory, Package, clean
from havre.packages.purl import package_url

_ROOT = "SPDXRef-DocumentRoot-Image"
NAMESPACE = uuid.UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")  # RFC 9562: names that are URLs
_SECONDS = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?Z\Z")
_ADDRESS = re.compile(r"(.*?)\s*<([^<>\s]+)>\Z")
_HOMEPAGE = re.compile(r"https?://[A-Za-z0-9._~:/?#@!$&'*+,;=%-]+\Z")
_EPOCH = "1970-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The document's subject: name, digest, creation time (RFC 3339), creator."""

    name: str
    digest: str
    created: str | None
    tool: str


def render_spdx(inventory: Inventory, subject: Subject) -> bytes:
    """The document."""
    packages: list[dict[str, Any]] = []
    unlisted: dict[str, str] = {}
    declared = cache(declare)
    for package in inventory.packages:
        licence = declared(package.licences)
        unlisted |= licence.unlisted
        packages.append(_package(package, package_url(package, inventory.distribution), licence.expression))
    document: dict[str, Any] = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": subject.name,
        "documentNamespace": "",
        "creationInfo": {"creators": [f"Tool: {subject.tool}"], "created": rounded(subject.created)},
        "packages": [_root(inventory, subject), *packages],
        "relationships": [
            _relationship("SPDXRef-DOCUMENT", "DESCRIBES", _ROOT),
            *(_relationship(_ROOT, "CONTAINS", package["SPDXID"]) for package in packages),
        ],
    }
    if unlisted:
        document["hasExtractedLicensingInfos"] = [
            {"licenseId": id, "name": text, "extractedText": text} for id, text in sorted(unlisted.items())
        ]
    if inventory.gaps:
        document["comment"] = "\n".join(inventory.gaps)
    unique = hashlib.sha256(subject.digest.encode() + msgspec.json.encode(document)).hexdigest()
    document["documentNamespace"] = f"https://spdx.org/spdxdocs/havre-{uuid.uuid5(NAMESPACE, unique)}"
    return msgspec.json.encode(document)


def rounded(created: str | None) -> str:
    """Truncate a time (RFC 3339) to seconds; the epoch for None."""
    match = _SECONDS.match(created or "")
    return f"{match[1]}Z" if match else _EPOCH


def full_name(package: Package) -> str:
    """The name with its namespace."""
    return f"{package.namespace}/{package.name}" if package.namespace else package.name


def _root(inventory: Inventory, subject: Subject) -> dict[str, Any]:
    title = inventory.distribution.title
    return {
        "SPDXID": _ROOT,
        "name": subject.name,
        "versionInfo": subject.digest,
        **_unsaid(),
        "licenseDeclared": NONE,
        "primaryPackagePurpose": "CONTAINER",
        **({"comment": f"its os-release says: {title}"} if title else {}),
    }


def _package(package: Package, url: str, licence: str) -> dict[str, Any]:
    plain = re.sub(r"[^A-Za-z0-9.-]+", "-", package.name)
    told_apart = hashlib.sha256(f"{url}\0{package.path}".encode()).hexdigest()[:16]
    return {
        "SPDXID": f"SPDXRef-Package-{package.kind}-{plain}-{told_apart}",
        "name": full_name(package),
        "versionInfo": package.version,
        "supplier": _supplier(package),
        **_unsaid(),
        **({"homepage": package.homepage} if _HOMEPAGE.match(package.homepage) else {}),
        "sourceInfo": f"told by {package.record}: {package.path}",
        "licenseDeclared": licence,
        "externalRefs": [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": url}],
    }


def _unsaid() -> dict[str, Any]:
    """Fields that were not determined."""
    return {
        "downloadLocation": NONE,
        "filesAnalyzed": False,
        "licenseConcluded": NONE,
        "copyrightText": NONE,
    }


def _supplier(package: Package) -> str:
    """rpm states a vendor, others a person or team by name and address."""
    text = clean(package.supplier)
    if not text:
        return NONE
    if package.kind == "rpm":
        return f"Organization: {text.replace('(', '').replace(')', '')}"
    match = _ADDRESS.match(text)
    name, address = (match[1], match[2]) if match else (text, "")
    name = re.sub(r"[()\"]", "", name).strip() or address
    return f"Person: {name} ({address})" if address else f"Person: {name}"


def _relationship(subject: str, kind: str, object: str) -> dict[str, str]:
    return {"spdxElementId": subject, "relationshipType": kind, "relatedSpdxElement": object}

"""An inventory as a CycloneDX 1.5 document in JSON, for tools that do not read SPDX.

Source: CycloneDX specification 1.5 (cyclonedx.org/docs/1.5/json).
"""

from __future__ import annotations

import hashlib
import uuid
from typing import Any

import msgspec

from havre.packages.licences import NONE, declare
from havre.packages.model import Inventory, Package
from havre.packages.purl import package_url
from havre.packages.spdx import NAMESPACE, Subject, full_name, rounded


def render_cyclonedx(inventory: Inventory, subject: Subject) -> bytes:
    """The document; deterministic."""
    name, _, version = subject.tool.partition("-")
    components = [_component(package, package_url(package, inventory.distribution)) for package in inventory.packages]
    document: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": "",
        "version": 1,
        "metadata": {
            "timestamp": rounded(subject.created),
            "tools": {"components": [{"type": "application", "name": name, "version": version}]},
            "component": {
                "type": "container",
                "bom-ref": subject.digest,
                "name": subject.name,
                "version": subject.digest,
                "properties": [{"name": "havre:gap", "value": gap} for gap in inventory.gaps],
            },
        },
        "components": components,
    }
    unique = hashlib.sha256(subject.digest.encode() + msgspec.json.encode(document)).hexdigest()
    document["serialNumber"] = f"urn:uuid:{uuid.uuid5(NAMESPACE, unique)}"
    return msgspec.json.encode(document)


def _component(package: Package, url: str) -> dict[str, Any]:
    """A package; its path distinguishes duplicates."""
    told_apart = hashlib.sha256(package.path.encode()).hexdigest()[:16]
    licence = declare(package.licences).expression
    return {
        "type": "library",
        "bom-ref": f"{url}#{told_apart}",
        "name": full_name(package),
        "version": package.version,
        **({"publisher": package.supplier} if package.supplier else {}),
        **({"licenses": [{"expression": licence}]} if licence != NONE else {}),
        "purl": url,
        "properties": [{"name": "havre:path", "value": package.path}],
    }

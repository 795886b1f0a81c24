"""An inventory as a document: complete, valid by the specification's rules, the same bytes each time."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

from havre.packages.cyclonedx import render_cyclonedx
from havre.packages.model import Distribution, Inventory, Package
from havre.packages.spdx import Subject, render_spdx

SUBJECT = Subject(name="app:1", digest="sha256:00", created="2024-05-06T07:08:09.123456Z", tool="havre-1")
PACKAGES = (
    Package(kind="deb", name="a", version="1", path="/s", record="r", licences=("GPL-2+", "own"), supplier="A <a@b>"),
    Package(kind="deb", name="a", version="1", path="/t", record="r"),
    Package(kind="rpm", name="b", version="2-1", supplier="Vendor (x)", homepage="https://example.org/ x"),
    Package(kind="npm", namespace="@s", name="c", version="3", homepage="https://example.org/x"),
)
INVENTORY = Inventory(Distribution("debian", "12", "Debian 12"), PACKAGES, ("/x: it cannot be read",))


def render(inventory: Inventory = INVENTORY, subject: Subject = SUBJECT) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(render_spdx(inventory, subject))
    return found


def test_the_document() -> None:
    document = render()
    assert (document["spdxVersion"], document["dataLicense"]) == ("SPDX-2.3", "CC0-1.0")
    assert document["creationInfo"] == {"created": "2024-05-06T07:08:09Z", "creators": ["Tool: havre-1"]}
    assert document["comment"] == "/x: it cannot be read"
    root, first, twin, vendor, scoped = document["packages"]
    assert (root["name"], root["versionInfo"]) == ("app:1", "sha256:00")
    assert first["licenseDeclared"] == "GPL-2.0-or-later AND LicenseRef-own"
    assert document["hasExtractedLicensingInfos"] == [
        {"licenseId": "LicenseRef-own", "name": "own", "extractedText": "own"}
    ]
    assert [each["supplier"] for each in (first, twin, vendor)] == [
        "Person: A (a@b)",
        "NOASSERTION",
        "Organization: Vendor x",
    ]
    assert [each.get("homepage") for each in (vendor, scoped)] == [None, "https://example.org/x"]
    assert scoped["name"] == "@s/c"
    assert first["externalRefs"] == [
        {
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": "pkg:deb/debian/a@1?distro=debian-12",
        }
    ]


def test_identifiers() -> None:
    document = render()
    ids = [each["SPDXID"] for each in document["packages"]]
    assert len(set(ids)) == len(ids) == 5
    assert all(re.fullmatch(r"SPDXRef-[A-Za-z0-9.-]+", id) for id in ids)
    told = [(r["spdxElementId"], r["relationshipType"], r["relatedSpdxElement"]) for r in document["relationships"]]
    assert told[0] == ("SPDXRef-DOCUMENT", "DESCRIBES", ids[0])
    assert told[1:] == [(ids[0], "CONTAINS", id) for id in ids[1:]]


def test_the_same_bytes_for_the_same_and_another_namespace_for_others() -> None:
    assert render_spdx(INVENTORY, SUBJECT) == render_spdx(INVENTORY, SUBJECT)
    others = [render(subject=replace(SUBJECT, digest="sha256:01")), render(Inventory(Distribution(), PACKAGES))]
    namespaces = {each["documentNamespace"] for each in [render(), *others]}
    assert len(namespaces) == 3
    assert all(re.fullmatch(r"https://[^#]+", each) for each in namespaces)


def test_nothing_installed_and_no_date() -> None:
    document = render(Inventory(Distribution(), ()), replace(SUBJECT, created=None))
    assert document["creationInfo"]["created"] == "1970-01-01T00:00:00Z"
    assert [each["name"] for each in document["packages"]] == ["app:1"]
    assert "comment" not in document
    assert "hasExtractedLicensingInfos" not in document


def test_cyclonedx() -> None:
    document = json.loads(render_cyclonedx(INVENTORY, SUBJECT))
    assert (document["bomFormat"], document["specVersion"], document["version"]) == ("CycloneDX", "1.5", 1)
    assert document["metadata"]["timestamp"] == "2024-05-06T07:08:09Z"
    assert document["metadata"]["component"]["properties"] == [{"name": "havre:gap", "value": "/x: it cannot be read"}]
    first, twin, _, scoped = document["components"]
    assert first["purl"] == twin["purl"] == "pkg:deb/debian/a@1?distro=debian-12"
    assert first["bom-ref"] != twin["bom-ref"]
    assert first["licenses"] == [{"expression": "GPL-2.0-or-later AND LicenseRef-own"}]
    assert ("licenses" in twin, scoped["name"]) == (False, "@s/c")
    assert render_cyclonedx(INVENTORY, SUBJECT) == render_cyclonedx(INVENTORY, SUBJECT)

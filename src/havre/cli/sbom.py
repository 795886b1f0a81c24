"""`havre image sbom`: packages installed in an image, as a table or an SPDX or CycloneDX document.

havre's daemon creates the document; records that could not be read are reported on standard error.
"""

from __future__ import annotations

import sys

from havre.cli.archive import check_output, write_output
from havre.cli.format.table import Listing
from havre.cli.parser import StatusError
from havre.cli.platforms import platform_parameters
from havre.golang.jsontext import decode
from havre.golang.texts import ellipsis

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from havre.cli.format.table import Fields
    from havre.cli.session import Session
    from havre.client.api import Query
    from havre.golang.flags import Options

_DOCUMENTS = ("spdx-json", "cyclonedx-json")
_WIDEST = 50
_VERB = "write the list of packages"
_UNSAID = "NOASSERTION"


def sbom(session: Session, options: Options, arguments: list[str]) -> int:
    """List the packages of an image."""
    client = session.client
    if options.output:
        check_output(options.output, _VERB)
    if "havre" not in client.server():
        raise StatusError(1, "lists of packages need havre's daemon")
    platforms = platform_parameters(client, [options.platform] if options.platform else [], "1.48")
    query: Query = {"platform": platforms, "format": [options.format] if options.format in _DOCUMENTS else []}
    body = client.call("GET", f"/images/{arguments[0]}/sbom", query).read()
    document = decode(body)
    for gap in _gaps(document):
        sys.stderr.write(f"warning: {gap}\n")
    if options.format in _DOCUMENTS:
        text = body + b"\n"
    else:
        rows = sorted(document["packages"][1:], key=lambda row: (row["name"], row["versionInfo"]))
        text = _listing(truncate=not options.no_trunc).render(rows, options.format).encode()
    write_output([text], options.output, _VERB)
    return 0


def _gaps(document: dict[str, Any]) -> list[str]:
    """The unreadable records, from either document format."""
    component = document.get("metadata", {}).get("component", {})
    return [*document.get("comment", "").splitlines(), *(each["value"] for each in component.get("properties", ()))]


def _listing(*, truncate: bool) -> Listing:
    def licences(row: dict[str, Any]) -> str:
        text = row["licenseDeclared"].replace(_UNSAID, "")
        return ellipsis(text, _WIDEST) if truncate else text

    fields: Fields = {
        "Name": ("NAME", lambda row: row["name"]),
        "Version": ("VERSION", lambda row: row["versionInfo"]),
        "Type": ("TYPE", lambda row: _package_url(row).removeprefix("pkg:").partition("/")[0]),
        "License": ("LICENSE", licences),
        "Supplier": ("SUPPLIER", lambda row: row["supplier"].replace(_UNSAID, "")),
        "PackageURL": ("PACKAGE URL", _package_url),
    }
    return Listing("*formatter.packageContext", fields, ("Name", "Version", "Type", "License"))


def _package_url(row: dict[str, Any]) -> str:
    found: str = row["externalRefs"][0]["referenceLocator"]
    return found

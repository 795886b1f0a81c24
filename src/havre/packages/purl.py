"""Package URLs: what a package is called everywhere.

    pkg:deb/debian/libstdc%2B%2B6@14.2.0-19?arch=amd64&distro=debian-13&upstream=gcc-14

Source: package-url/purl-spec, "components", "types".
"""

from __future__ import annotations

from urllib.parse import quote

from havre.packages.model import Distribution, Package

_OF_DISTRIBUTIONS = ("deb", "apk", "rpm")


def package_url(package: Package, distribution: Distribution) -> str:
    """The package's URL; distribution packages use the distribution as namespace."""
    namespace, name = package.namespace, package.name
    qualifiers = {"arch": package.architecture, "epoch": package.epoch, "upstream": package.source}
    if package.kind in _OF_DISTRIBUTIONS:
        namespace = distribution.id.lower()
        qualifiers["distro"] = "-".join(filter(None, (namespace, distribution.version)))
    if package.kind == "pypi":
        name = name.replace("_", "-").lower()
    if package.kind == "golang":
        namespace, name = namespace.lower(), name.lower()
    path = "/".join(map(_encode, filter(None, (package.kind, *namespace.split("/"), name))))
    query = "&".join(f"{key}={_encode(value)}" for key, value in sorted(qualifiers.items()) if value)
    return f"pkg:{path}@{_encode(package.version)}{f'?{query}' if query else ''}"


def _encode(text: str) -> str:
    return quote(text, safe=":")

"""A registry's content on disk: blobs once, and each repository's links to them.

    blobs/ALGORITHM/HEX                    every blob and manifest, verified (storage.Blobs); sha256 or sha512
    repositories/NAME with %2F/blobs/HEX   an empty file: the repository has this blob
                               manifests/HEX   {"mediaType", "subject", "artifactType", "annotations"}
                               tags/TAG        the tag's digest
                               referrers/HEX/HEX   an empty file: the second manifest's subject is the first
    uploads/ID                             bytes of an unfinished upload; removed at start
    lock                                   for `Turns`

Files appear by rename, so a reader sees complete files. Blocking, but small; large data goes through `Blobs`. Raises
`RegistryRefusal` with the specification's codes.

Source: OCI distribution specification 1.1, "Endpoints" and "Error codes".
Why: docs/decisions/124.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, unquote

import msgspec

from havre.distribution.turns import Turns
from havre.errors import HavreError
from havre.golang import gojson
from havre.oci.digest import Digest, digest_named, hex_of, parse_any_digest
from havre.oci.manifest import Descriptor, Manifest, decode_document
from havre.storage.blobs import Blobs

_NAME = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_LONGEST_NAME = 200


class RegistryRefusal(HavreError):
    """An error of the specification: an HTTP status, a code such as BLOB_UNKNOWN, and headers."""

    def __init__(self, http_status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.http_status = http_status
        self.code = code
        self.headers = headers or {}


class ManifestRow(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What a repository stores of a manifest beside its bytes; `subject` is the digest that it refers to."""

    media_type: str
    size: int
    subject: str = ""
    artifact_type: str = ""
    annotations: dict[str, str] | None = None

    @classmethod
    def of(cls, body: bytes, media_type: str) -> ManifestRow:
        """The row of the manifest in `body`. `InvalidInput` or `RegistryRefusal` for an invalid one."""
        document = decode_document(body, media_type, parse_any_digest)
        extra = gojson.decode(body, _Extra, "invalid manifest")
        config = document.config.media_type if isinstance(document, Manifest) else ""
        subject = parse_any_digest(extra.subject.digest) if extra.subject else ""
        return cls(document.media_type, len(body), subject, extra.artifact_type or config, extra.annotations)


class _Extra(msgspec.Struct, rename="camel"):
    """Fields of a manifest other than its blobs."""

    subject: Descriptor | None = None
    artifact_type: str = ""
    annotations: dict[str, str] | None = None


class Repositories:
    """The repositories under `root`. `beside` a serving process: keep its uploads, and use only in an exclusive
    turn."""

    def __init__(self, root: Path, *, beside: bool = False) -> None:
        self.blobs = Blobs(_directory(root / "blobs"))
        self._root = _directory(root / "repositories")
        self.uploads = _directory(root / "uploads")
        self.turns = Turns(root)
        for leftover in () if beside else self.uploads.iterdir():
            leftover.unlink()

    def names(self) -> list[str]:
        """All repositories with a manifest."""
        return sorted(unquote(one.name) for one in self._root.iterdir() if any((one / "manifests").glob("*")))

    def folders(self) -> list[Path]:
        """The directories of all repositories, for `collect`."""
        return list(self._root.iterdir())

    # -- blobs

    def holds_blob(self, name: str, digest: Digest) -> bool:
        """Report whether the repository has the blob."""
        return (self._folder(name, "blobs") / hex_of(digest)).exists()

    def require_blob(self, name: str, digest: Digest) -> Path:
        """The file of a blob of the repository, or BLOB_UNKNOWN."""
        if not self.holds_blob(name, digest) or not self.blobs.has(digest):
            raise RegistryRefusal(404, "BLOB_UNKNOWN", "blob unknown to registry")
        return self.blobs.path(digest)

    def link_blob(self, name: str, digest: Digest) -> None:
        """Link a stored blob to the repository."""
        self._write(self._folder(name, "blobs") / hex_of(digest), b"")

    def touch_blob(self, name: str, digest: Digest) -> None:
        """Renew a link's age: a client was told that the blob is present and may refer to it soon."""
        self.require_blob(name, digest)
        os.utime(self._folder(name, "blobs") / hex_of(digest))

    def unlink_blob(self, name: str, digest: Digest) -> None:
        """Remove the repository's link to the blob."""
        self.require_blob(name, digest)
        (self._folder(name, "blobs") / hex_of(digest)).unlink(missing_ok=True)

    # -- manifests

    def resolve(self, name: str, reference: str) -> tuple[Digest, ManifestRow]:
        """The manifest of a tag or digest."""
        digest = self._digest_of(name, reference)
        file = self._folder(name, "manifests") / hex_of(digest)
        try:
            return digest, msgspec.json.decode(file.read_bytes(), type=ManifestRow)
        except FileNotFoundError:
            raise RegistryRefusal(404, "MANIFEST_UNKNOWN", "manifest unknown") from None

    def put_manifest(self, name: str, digest: Digest, row: ManifestRow, tag: str | None) -> None:
        """Link a manifest whose bytes are stored, and set `tag` to it."""
        if row.subject:
            self._write(self._referrer(name, row.subject, digest), b"")
        self._write(self._folder(name, "manifests") / hex_of(digest), msgspec.json.encode(row))
        if tag is not None:
            self._write(self._folder(name, "tags") / tag, digest.encode())

    def manifests(self, name: str) -> list[Digest]:
        """The digests of all manifests of a repository."""
        return [digest_named(file.name) for file in self._folder(name, "manifests").glob("*")]

    def remove_tag(self, name: str, tag: str) -> None:
        """Remove a tag; the manifest stays."""
        self.resolve(name, tag)
        (self._folder(name, "tags") / tag).unlink(missing_ok=True)

    def remove_manifest(self, name: str, digest: Digest) -> None:
        """Remove a manifest and its tags."""
        _, row = self.resolve(name, digest)
        for tag in self._folder(name, "tags").glob("*"):
            if tag.read_text() == digest:
                tag.unlink(missing_ok=True)
        (self._folder(name, "manifests") / hex_of(digest)).unlink(missing_ok=True)
        if row.subject:
            self._referrer(name, row.subject, digest).unlink(missing_ok=True)

    def tags(self, name: str) -> list[str]:
        """All tags of a repository, sorted."""
        if not self._folder(name, "manifests").is_dir():
            raise RegistryRefusal(404, "NAME_UNKNOWN", "repository name not known to registry")
        return sorted(file.name for file in self._folder(name, "tags").glob("*"))

    def referrers(self, name: str, subject: Digest) -> list[tuple[Digest, ManifestRow]]:
        """The manifests whose subject is `subject`."""
        found = []
        for file in sorted((self._folder(name, "referrers") / hex_of(subject)).glob("*")):
            with suppress(RegistryRefusal):  # added or removed concurrently
                found.append(self.resolve(name, digest_named(file.name)))
        return found

    # -- inside

    def _digest_of(self, name: str, reference: str) -> Digest:
        if ":" in reference:
            return Digest(reference)
        try:
            return Digest((self._folder(name, "tags") / reference).read_text())
        except FileNotFoundError:
            raise RegistryRefusal(404, "MANIFEST_UNKNOWN", "manifest unknown") from None

    def _referrer(self, name: str, subject: str, digest: Digest) -> Path:
        return self._folder(name, "referrers") / hex_of(Digest(subject)) / hex_of(digest)

    def _folder(self, name: str, kind: str) -> Path:
        return self._root / quote(name, safe="") / kind

    def _write(self, file: Path, data: bytes) -> None:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = self.uploads / secrets.token_hex(8)
        temporary.write_bytes(data)
        os.replace(temporary, file)


def check_name(name: str) -> str:
    """Validate a repository name; raises NAME_INVALID."""
    if len(name) > _LONGEST_NAME or _NAME.fullmatch(name) is None:
        raise RegistryRefusal(400, "NAME_INVALID", "invalid repository name")
    return name


def check_tag(tag: str) -> str:
    """Validate a tag; raises MANIFEST_INVALID."""
    if _TAG.fullmatch(tag) is None:
        raise RegistryRefusal(400, "MANIFEST_INVALID", "invalid tag name")
    return tag


def page_of(entries: Sequence[str], last: str, count: int | None) -> tuple[list[str], bool]:
    """The entries after `last`, at most `count`, and whether more follow."""
    behind = [entry for entry in entries if entry > last]
    return (behind, False) if count is None else (behind[:count], len(behind) > count)


def missing(repositories: Repositories, name: str, blobs: Iterable[Digest]) -> list[Digest]:
    """Those of `blobs` that the repository does not have."""
    return [digest for digest in blobs if not repositories.holds_blob(name, digest)]


def _directory(path: Path) -> Path:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path

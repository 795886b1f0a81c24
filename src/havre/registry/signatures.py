"""cosign signatures of images: finds, verifies and requires them.

    image digest D --+-- tag sha256-HEX.sig                                  one manifest ...
                     '-- GET referrers/D?artifactType=...artifact.sig.v1     ... or one for each signature
                           |
                           v  each layer: a payload, signed by the annotation dev.cosignproject.cosign/signature
    {"critical": {"type": "cosign container image signature", "image": {"docker-manifest-digest": D}}}

One valid signature by the key is sufficient; those by other keys, of other images, or damaged are ignored. The
signature
is of what the reference resolves to: the index, if there is one, which includes everything below by digest.

Not supported: keyless signatures (certificates and the transparency log), Sigstore bundles. The `Policy` maps names to
keys; the payload's `docker-reference` is not compared, as copies keep their signatures.

Source: sigstore/cosign, "specs/SIGNATURE_SPEC.md"; OCI distribution specification 1.1, "Listing Referrers".
Why: docs/decisions/200.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from havre.errors import Forbidden, InvalidInput, NotFound
from havre.oci.digest import Digest, hex_of
from havre.oci.manifest import Descriptor, Manifest, decode_document
from havre.oci.reference import Reference
from havre.registry.auth import Auth
from havre.registry.client import Fetched

ARTIFACT = "application/vnd.dev.cosign.artifact.sig.v1+json"
PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"
ANNOTATION = "dev.cosignproject.cosign/signature"
TYPE = "cosign container image signature"
MAX_PAYLOAD = 64 << 10
MAX_SIGNATURES = 100
"""Maximum number of signatures of one image that are checked."""


class SignatureRegistry(Protocol):
    """The part of the registry client that is needed here."""

    async def manifest(self, ref: Reference, auth: Auth | None = None) -> Fetched: ...
    async def document(self, ref: Reference, descriptor: Descriptor, auth: Auth | None, limit: int) -> bytes: ...
    async def referrers(
        self, ref: Reference, subject: Digest, artifact_type: str, auth: Auth | None = None
    ) -> Sequence[Descriptor]: ...


class _Image(msgspec.Struct, rename="kebab"):
    docker_manifest_digest: str = ""


class _Critical(msgspec.Struct):
    image: _Image
    type: str = ""


class _Payload(msgspec.Struct):
    critical: _Critical


class PublicKey:
    """A cosign public key: PEM of ECDSA, Ed25519 or RSA."""

    def __init__(self, pem: str, name: str) -> None:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        self.name = name
        try:
            key = load_pem_public_key(pem.encode())
        except (ValueError, UnsupportedAlgorithm) as error:
            raise InvalidInput(
                f"{name} is not a public key in PEM", "expected what `cosign generate-key-pair` writes"
            ) from error
        if not isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey):
            raise InvalidInput(f"{name} is a key of an unsupported type", "expected ECDSA, Ed25519 or RSA")
        self._key = key

    def signed(self, payload: bytes, signature: bytes) -> bool:
        """Report whether `signature` is this key's of `payload` (with SHA-256, except for Ed25519)."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding
        from cryptography.hazmat.primitives.hashes import SHA256

        try:
            if isinstance(self._key, ec.EllipticCurvePublicKey):
                self._key.verify(signature, payload, ec.ECDSA(SHA256()))
            elif isinstance(self._key, ed25519.Ed25519PublicKey):
                self._key.verify(signature, payload)
            else:
                self._key.verify(signature, payload, padding.PKCS1v15(), SHA256())
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class Policy:
    """The keys required by prefix of image names: `*`, a registry, a repository or a folder."""

    keys: Mapping[str, PublicKey]

    @classmethod
    def read(cls, files: Mapping[str, str]) -> Policy:
        """The policy of `files` (name prefix: path of a key). `InvalidInput` for an invalid key. Blocking."""
        keys = {}
        for prefix, path in files.items():
            try:
                keys[prefix.rstrip("/")] = PublicKey(Path(path).read_text(), path)
            except (OSError, UnicodeDecodeError) as error:
                raise InvalidInput(f"signature-keys: {prefix}: cannot read {path}: {error}") from error
        return cls(keys)

    def key_for(self, ref: Reference) -> PublicKey | None:
        """The key of the longest prefix of `ref`'s full name; None where no signature is required."""
        fitting = [prefix for prefix in self.keys if prefix == "*" or f"{ref.name}/".startswith(f"{prefix}/")]
        return self.keys[max(fitting, key=lambda prefix: (prefix != "*", len(prefix)))] if fitting else None


async def require_signature(
    registry: SignatureRegistry, ref: Reference, digest: Digest, key: PublicKey, auth: Auth | None
) -> None:
    """Raise `Forbidden` unless the registry has a signature of `digest` by `key`."""
    seen = 0
    async for manifest in _signature_manifests(registry, ref, digest, auth):
        for layer in manifest.layers:
            if layer.media_type != PAYLOAD:
                continue
            if (seen := seen + 1) > MAX_SIGNATURES:
                raise Forbidden(
                    f"{ref.familiar()} has more than {MAX_SIGNATURES} signatures", "none of those checked is valid"
                )
            payload = await registry.document(ref, layer, auth, MAX_PAYLOAD)
            if is_sound(payload, (layer.annotations or {}).get(ANNOTATION, ""), digest, key):
                return
    found = f"none of its {seen} signatures is by it and for {digest}" if seen else "it has no signature"
    raise Forbidden(
        f"{ref.familiar()} is refused: it must be signed by the key {key.name}, and {found}",
        "sign it with `cosign sign --key`, or change signature-keys in daemon.json",
    )


def is_sound(payload: bytes, signature: str, digest: Digest, key: PublicKey) -> bool:
    """Report whether `signature` (base64) is `key`'s of `payload`, and the payload's image is `digest`."""
    try:
        if not key.signed(payload, base64.b64decode(signature, validate=True)):
            return False
        critical = msgspec.json.decode(payload, type=_Payload).critical
    except (binascii.Error, ValueError, msgspec.MsgspecError, RecursionError):
        return False
    return critical.type == TYPE and critical.image.docker_manifest_digest == digest


async def _signature_manifests(
    registry: SignatureRegistry, ref: Reference, digest: Digest, auth: Auth | None
) -> AsyncIterator[Manifest]:
    """Yield the manifests that may have signatures of `digest`, the one by tag first."""
    try:
        yield await _manifest(registry, ref.with_tag(f"sha256-{hex_of(digest)}.sig"), auth)
    except NotFound:
        pass  # its signatures may be referrers
    for one in (await registry.referrers(ref, digest, ARTIFACT, auth))[:MAX_SIGNATURES]:
        yield await _manifest(registry, ref.with_digest(one.digest), auth)


async def _manifest(registry: SignatureRegistry, ref: Reference, auth: Auth | None) -> Manifest:
    fetched = await registry.manifest(ref, auth)
    document = decode_document(fetched.body, fetched.media_type)
    if not isinstance(document, Manifest):
        raise InvalidInput(f"signature {ref.familiar()} is an index")
    return document

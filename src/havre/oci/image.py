"""The configuration of an image: its containers' defaults, its layers, its history.

An image *is* this document: its ID is the document's digest. It is therefore stored byte for byte, and this struct is
only a view of it. `config` stays a plain mapping here; `images` decodes it as a `Config`.

Source: OCI image specification, "config.md".
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from havre.errors import InvalidInput
from havre.golang import gojson
from havre.oci.digest import Digest, parse_digest
from havre.oci.manifest import MAX_CONFIG, MAX_LAYERS
from havre.oci.platform import Platform


class RootFs(msgspec.Struct, frozen=True):
    """The layers by the digests of their uncompressed tars, base first."""

    type: str = "layers"
    diff_ids: tuple[Digest, ...] = ()


class History(msgspec.Struct, frozen=True, omit_defaults=True):
    """One step of the image's history; `empty_layer` steps changed only the configuration. `created` is RFC 3339."""

    created: str | None = None
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


class ImageConfig(msgspec.Struct, frozen=True):
    """The document as a value; absent texts are empty, `created` is RFC 3339 or None."""

    architecture: str = ""
    os: str = ""
    rootfs: RootFs = RootFs()
    created: str | None = None
    author: str = ""
    comment: str = ""
    docker_version: str = ""
    variant: str = ""
    os_version: str = msgspec.field(default="", name="os.version")
    config: dict[str, Any] | None = None
    history: tuple[History, ...] | None = None

    @property
    def platform(self) -> Platform:
        """The platform that the image is for."""
        return Platform(self.architecture, self.os or "linux", variant=self.variant)


def decode_image(body: bytes) -> ImageConfig:
    """Decode a configuration. `InvalidInput` if it cannot be an image."""
    if len(body) > MAX_CONFIG:
        raise InvalidInput(f"image configuration of {len(body)} bytes", f"at most {MAX_CONFIG} are accepted")
    image = gojson.decode(body, ImageConfig, "invalid image configuration")
    if len(image.rootfs.diff_ids) > MAX_LAYERS:
        raise InvalidInput(f"image with {len(image.rootfs.diff_ids)} layers", f"at most {MAX_LAYERS} are accepted")
    for diff_id in image.rootfs.diff_ids:
        parse_digest(diff_id)
    return image


def encode_image(image: ImageConfig) -> bytes:
    """Encode the document, without empty members."""
    fields = {key: value for key, value in msgspec.to_builtins(image).items() if value not in ("", None)}
    return msgspec.json.encode(fields)


def chain_ids(diff_ids: Sequence[Digest]) -> list[Digest]:
    """The chain ID of each layer, which identifies it together with all layers below."""
    chains: list[Digest] = []
    for diff_id in diff_ids:
        text = f"{chains[-1]} {diff_id}" if chains else None
        chains.append(Digest("sha256:" + hashlib.sha256(text.encode()).hexdigest()) if text else diff_id)
    return chains

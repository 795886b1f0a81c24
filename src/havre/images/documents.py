"""Reads the container defaults (`config`) of an image configuration, checked by type. Pure.

dockerd decodes a configuration with Go's encoding/json and refuses one with a wrong type anywhere; the same check is
made here when an image is added (pull, load, import, a base of a build). Images that an older version of havre
stored without this check can be listed and removed, but not run.

Source: OCI image specification, "config.md"; dockerd 26.1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from havre.errors import InvalidInput
from havre.golang import gojson
from havre.oci.image import ImageConfig, decode_image
from havre.wire.config import Config

# Go's time.Time: RFC 3339 with a fraction of any length.
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)")


class _Checked(Config):
    """`Config`, plus the types of fields that Docker's tools write and havre ignores."""

    exposed_ports: dict[str, dict[str, Any]] | None = None
    volumes: dict[str, dict[str, Any]] | None = None


class _Labelled(msgspec.Struct, rename="pascal"):
    labels: dict[str, str] | None = None


def read_image(body: bytes) -> ImageConfig:
    """The image configuration in `body`.

    Raises `InvalidInput`, naming the field, if no container can be made from it.
    """
    image = decode_image(body)
    _convert(image, "invalid image configuration: config")
    _check_time(image.created, "created")
    for at, step in enumerate(image.history or ()):
        _check_time(step.created, f"history[{at}].created")
    return image


def read_config(document: ImageConfig, name: str) -> Config:
    """The container defaults in the configuration of the image `name`. Raises `InvalidInput`."""
    try:
        return _convert(document, f"configuration of image {name} is malformed")
    except InvalidInput as error:
        raise InvalidInput(error.message, "remove the image and pull or build it again") from error


def labels_of(document: ImageConfig) -> Mapping[str, str] | None:
    """An image's labels; None if absent or of a wrong type."""
    try:
        return gojson.convert(document.config, _Labelled).labels
    except InvalidInput:
        return None


def _convert(document: ImageConfig, what: str) -> Config:
    checked = gojson.convert(document.config, _Checked, what)
    return Config(**{name: getattr(checked, name) for name in Config.__struct_fields__})


def _check_time(text: str | None, field: str) -> None:
    if text:
        found = _TIME.fullmatch(text)
        try:
            if found is None:
                raise ValueError
            datetime.fromisoformat(found[1] + found[3].replace("Z", "+00:00"))
        except ValueError:
            problem = f"invalid image configuration: {field} is {text[:100]!r}"
            raise InvalidInput(problem, "RFC 3339 is expected") from None

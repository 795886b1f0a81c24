"""Limits of time and size for registries: `registry-limits` of daemon.json. Pure.

Why these numbers: docs/why/registry.md#pull.

    {"answer-seconds": 120, "upload-seconds": 600, "wait-seconds": 30, "redirects": 5,
     "patience-seconds": 60, "bytes-per-second": 1024, "layer-bytes": 274877906944}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from havre.errors import InvalidInput

_FIELDS = {
    "answer-seconds": "answer_s",
    "upload-seconds": "upload_s",
    "wait-seconds": "wait_s",
    "redirects": "redirects",
    "patience-seconds": "patience_s",
    "bytes-per-second": "min_rate",
    "layer-bytes": "layer_bytes",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """`attempts` of a request, and of a blob without progress; `answer_s` is the timeout of response headers.

    `upload_s` is that of requests with a body, which take long on a slow line; `wait_s` the longest wait that a
    registry may ask for before a retry; `redirects` how many of them are followed. A blob that received fewer than
    `min_rate` bytes per second in the last `patience_s` fails. A layer that unpacks to more than `layer_bytes` is
    rejected before it fills the disk.
    """

    attempts: int = 5
    answer_s: float = 120.0
    upload_s: float = 600.0
    wait_s: float = 30.0
    redirects: int = 5
    patience_s: float = 60.0
    min_rate: int = 1 << 10
    layer_bytes: int = 256 << 30


def parse_limits(value: Mapping[str, Any]) -> Limits:
    """The limits of daemon.json; raises `InvalidInput`."""
    for key, number in value.items():
        if key not in _FIELDS:
            raise InvalidInput(f"invalid registry-limits: unknown key {key!r}", f"one of {', '.join(_FIELDS)}")
        if isinstance(number, bool) or not isinstance(number, int) or number <= 0:
            raise InvalidInput(f"invalid {key} of registry-limits: {json.dumps(number)}", "expected a number above 0")
    return replace(Limits(), **{_FIELDS[key]: number for key, number in value.items()})

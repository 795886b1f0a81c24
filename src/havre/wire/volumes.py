"""Requests and answers about volumes, but for the volume itself. Source: Docker Engine API, "Volumes"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from havre.wire.values import Value


class VolumeRequest(Value):
    """The body of `POST /volumes/create`; without a name the volume is anonymous."""

    name: str = ""
    driver: str = ""
    driver_opts: dict[str, str] | None = None
    labels: dict[str, str] | None = None
    cluster_volume_spec: dict[str, Any] | None = None


class VolumeList(Value):
    """The answer of list."""

    volumes: Sequence[Value]
    warnings: list[str] | None


class VolumesPruned(Value):
    """The answer of prune: names, and the bytes freed."""

    volumes_deleted: Sequence[str]
    space_reclaimed: int

"""Images as the API shows them: a row of the list, the details, the history.

What only older versions of the API have is UNSET until `versions` lowers an answer to one of them.

Source: Docker Engine API, "ImageSummary", "ImageInspect" and "ImageHistory".
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import UNSET, UnsetType

from havre.wire.config import Config
from havre.wire.values import Value

UNKNOWN = -1


class ImageSummary(Value):
    """One row of the list; `created` in seconds since the epoch, counts and sizes -1 where not asked for.

    `manifests`, and the `descriptor` (of OCI) of the index that has them, are UNSET unless asked for.
    """

    id: str
    parent_id: str = ""
    repo_tags: list[str] | None = msgspec.field(default_factory=list)
    repo_digests: list[str] | None = msgspec.field(default_factory=list)
    created: int = 0
    size: int = 0
    shared_size: int = UNKNOWN
    labels: dict[str, str] | None = None
    containers: int = UNKNOWN
    manifests: Sequence[Value] | UnsetType = UNSET
    descriptor: msgspec.Struct | UnsetType = UNSET
    virtual_size: int | UnsetType = UNSET


class RootFs(Value):
    """The layers of an image, base first."""

    type: str
    layers: list[str]


class GraphDriver(Value):
    """How the layers are stored."""

    name: str
    data: dict[str, str] | None = None


class ImageDetails(Value, kw_only=True):
    """What `inspect` shows; times are RFC 3339, sizes bytes, the manifests as in `ImageSummary`."""

    id: str
    repo_tags: list[str]
    repo_digests: list[str]
    parent: str
    comment: str
    created: str | UnsetType = UNSET
    docker_version: str
    author: str
    config: Config
    architecture: str
    variant: str | UnsetType = UNSET
    os: str
    size: int
    graph_driver: GraphDriver
    root_fs: RootFs = msgspec.field(name="RootFS")
    metadata: dict[str, str]
    manifests: Sequence[Value] | UnsetType = UNSET
    descriptor: msgspec.Struct | UnsetType = UNSET
    container_config: Config | UnsetType = UNSET
    virtual_size: int | UnsetType = UNSET


class HistoryItem(Value):
    """One step of an image's making; `created` in seconds since the epoch."""

    id: str
    created: int
    created_by: str
    tags: list[str] | None
    size: int
    comment: str

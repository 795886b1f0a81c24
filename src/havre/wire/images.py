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

    `descriptor` is OCI's of the index or manifest, UNSET within `system df`; `manifests` are UNSET unless asked for.
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


class PullIdentity(Value):
    """A repository that an image was pulled from or pushed to: `docker.io/library/busybox`."""

    repository: str


class Identity(Value):
    """Where an image came from, as the daemon itself knows."""

    pull: Sequence[PullIdentity]


class ImageDetails(Value, kw_only=True):
    """What `inspect` shows; times are RFC 3339, sizes bytes, the manifests as in `ImageSummary`.

    Texts that are empty are UNSET, and "" for clients before 1.52.
    """

    id: str
    repo_tags: list[str]
    repo_digests: list[str]
    parent: str | UnsetType = UNSET
    comment: str | UnsetType = UNSET
    created: str | UnsetType = UNSET
    docker_version: str | UnsetType = UNSET
    author: str | UnsetType = UNSET
    config: Config
    architecture: str
    variant: str | UnsetType = UNSET
    os: str
    size: int
    graph_driver: GraphDriver
    root_fs: RootFs = msgspec.field(name="RootFS")
    metadata: dict[str, str]
    identity: Identity | UnsetType = UNSET
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

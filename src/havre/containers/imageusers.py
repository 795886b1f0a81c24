"""Finds the containers that use an image, for the images room, which does not depend on containers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from havre.containers.live import Index
from havre.images.summaries import ImageUser
from havre.wire.values import ImageId


def image_users(index: Index) -> Callable[[ImageId], Sequence[ImageUser]]:
    """A function that returns the containers created from an image, or that mount it."""

    def users_of(image: ImageId) -> Sequence[ImageUser]:
        return [
            ImageUser(live.container.id, live.container.state.running)
            for live in index
            if live.container.spec.image == image
            or any(point.type == "image" and point.source == image for point in live.container.spec.mounts)
        ]

    return users_of

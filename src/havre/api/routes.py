"""All routes, collected from the modules of the nouns."""

from __future__ import annotations

from havre.api import (
    build,
    checkpoints,
    container_streams,
    containers,
    diskusage,
    exec,
    files,
    grpc,
    images,
    networks,
    plugins,
    pruning,
    stats,
    swarm,
    system,
    updates,
    volumes,
)
from havre.api.router import Router


def build_router() -> Router:
    """The complete routing table."""
    router = Router()
    for noun in (
        system,
        diskusage,
        checkpoints,
        containers,
        container_streams,
        exec,
        files,
        stats,
        updates,
        images,
        volumes,
        networks,
        plugins,
        pruning,
        swarm,
    ):
        noun.register(router)
    doors = grpc.Doors()
    build.register(router, doors)
    grpc.register(router, doors)
    return router

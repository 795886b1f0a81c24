"""Where a build's result comes from: the predicate of an attestation. Pure.

    mode=min    the bases by digest, the platform, times, which kinds of inputs there were
    mode=max    also the arguments and labels that were given, and the Dockerfile

Secrets are never part of it; arguments are, as with BuildKit, so `max` wants care with them.

Source: SLSA provenance v0.2; moby/buildkit docs/attestations/slsa-provenance.md.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from havre.build.request import DockerfileBytes, Provenance
from havre.engine import times

_TYPE = "https://mobyproject.org/buildkit@v1"
_METADATA = f"{_TYPE}#metadata"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a build: options as BuildKit's frontend has them, digests of materials by package URL.

    Times are seconds since the epoch; `contexts` the names of directories that the client sent.
    """

    id: str
    dockerfile: DockerfileBytes
    platform: str
    options: Mapping[str, str]
    contexts: tuple[str, ...]
    materials: Mapping[str, str]
    started_at: float
    finished_at: float


def render_provenance(facts: Facts, asked: Provenance) -> bytes:
    """The predicate, JSON."""
    full = asked.mode == "max"
    parameters: dict[str, Any] = {"frontend": "dockerfile.v0", "locals": [{"name": name} for name in facts.contexts]}
    metadata: dict[str, Any] = {
        "buildInvocationID": facts.id,
        "buildStartedOn": times.from_seconds(facts.started_at),
        "buildFinishedOn": times.from_seconds(facts.finished_at),
        "completeness": {"parameters": full, "environment": True, "materials": False},
        "reproducible": False,
    }
    if full:
        parameters["args"] = dict(sorted(facts.options.items()))
        text = base64.b64encode(facts.dockerfile.data).decode()
        source = {"filename": facts.dockerfile.name, "language": "Dockerfile", "data": text}
        metadata[_METADATA] = {"source": {"infos": [source]}}
    return msgspec.json.encode(
        {
            "builder": {"id": asked.builder_id},
            "buildType": _TYPE,
            "materials": [
                {"uri": uri, "digest": dict([digest.split(":", 1)])} for uri, digest in sorted(facts.materials.items())
            ],
            "invocation": {
                "configSource": {"entryPoint": facts.dockerfile.name},
                "parameters": parameters,
                "environment": {"platform": facts.platform},
            },
            "metadata": metadata,
        }
    )

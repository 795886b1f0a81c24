"""The provenance attestation of a build's result: its predicate. Pure.

    mode=min    digests of materials, the builder's platform, times, kinds of inputs
    mode=max    also the build arguments and labels given, IDs of secrets and SSH agents, and the Dockerfile
    version=v0.2    materials,            invocation,                        metadata
    version=v1      resolvedDependencies, external and internal parameters,  run details: the same by other names

Values of secrets are never included; values of build arguments are with `max`, as in BuildKit. BuildKit's steps in its
own language (LLB) and their layers are missing, because this builder has none.

Source: SLSA provenance v0.2, v1.1; moby/buildkit docs/attestations/slsa-definitions.md.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import Any

import msgspec

from havre.builds.request import MAIN_CONTEXT, DockerfileBytes, Origin, Provenance
from havre.dockerfile.mounts import secret_id
from havre.dockerfile.plan import Action, RunAction
from havre.oci.attestation import PROVENANCE, PROVENANCE_V1, Predicate
from havre.wire import times

_TYPE = "https://mobyproject.org/buildkit@v1"
_TYPE_V1 = "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md"


@dataclass
class Inputs:
    """External inputs of a build's steps, collected as they run.

    `materials` are digests (`sha256:HEX`, of a git commit `sha1:HEX`) by package URL or address; `secrets` and `agents`
    are IDs, each with whether it is optional; `network`: a command had access to the network.
    """

    materials: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, bool] = field(default_factory=dict)
    agents: dict[str, bool] = field(default_factory=dict)
    network: bool = False

    def note(self, action: Action | None, network: str) -> None:
        """Record the inputs of a step, in a build with this network."""
        if not isinstance(action, RunAction):
            return
        self.network = self.network or "none" not in (network, action.network)
        for mount in action.mounts:
            if mount.type == "secret":
                self.secrets[secret_id(mount)] = self.secrets.get(secret_id(mount), True) and not mount.required
            elif mount.type == "ssh":
                self.agents[mount.id or "default"] = self.agents.get(mount.id or "default", True) and not mount.required


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Facts about a build: options with the names of BuildKit's frontend, and inputs.

    Times are seconds since the epoch; `platform` is the builder's; `contexts` are names of directories that the client
    sent, `origins` the sources of fetched ones; `vcs` is the client's description of its repository.
    """

    id: str
    dockerfile: DockerfileBytes
    platform: str
    options: Mapping[str, str]
    contexts: Set[str]
    origins: Mapping[str, Origin]
    vcs: Mapping[str, str]
    inputs: Inputs
    started_at: float
    finished_at: float

    @property
    def materials(self) -> list[dict[str, Any]]:
        """The materials: images, then repositories, then files."""
        found = self.inputs.materials | {each.address: each.digest for each in self.origins.values()}
        order = sorted(found, key=lambda uri: (not uri.startswith("pkg:"), not found[uri].startswith("sha1:"), uri))
        return [{"uri": uri, "digest": _digest_set(found[uri])} for uri in order]

    @property
    def complete(self) -> bool:
        """Report whether the materials are complete."""
        return not self.contexts

    @property
    def hermetic(self) -> bool:
        """Report whether all inputs are known, i.e. the materials are complete and the network was not used."""
        return self.complete and not self.inputs.network


def render_provenance(facts: Facts, asked: Provenance) -> Predicate:
    """The predicate in the version and with the details requested."""
    return _render_v1(facts, asked) if asked.version == "v1" else _render_v02(facts, asked)


def _render_v02(facts: Facts, asked: Provenance) -> Predicate:
    parameters, complete = _parameters(facts, asked)
    document = {
        "builder": {"id": asked.builder_id},
        "buildType": _TYPE,
        "materials": facts.materials,
        "invocation": {
            "configSource": _config_source(facts) | {"entryPoint": facts.dockerfile.name},
            "parameters": parameters,
            "environment": {"platform": facts.platform},
        },
        "metadata": {
            "buildInvocationID": facts.id,
            "buildStartedOn": times.from_seconds(facts.started_at),
            "buildFinishedOn": times.from_seconds(facts.finished_at),
            "completeness": {"parameters": complete, "environment": True, "materials": facts.complete},
            "reproducible": asked.reproducible,
            **({f"{_TYPE}#hermetic": True} if facts.hermetic else {}),
            **({f"{_TYPE}#metadata": more} if (more := _more(facts, asked)) else {}),
        },
    }
    return Predicate(PROVENANCE, msgspec.json.encode(document))


def _render_v1(facts: Facts, asked: Provenance) -> Predicate:
    parameters, complete = _parameters(facts, asked)
    document = {
        "buildDefinition": {
            "buildType": _TYPE_V1,
            "externalParameters": {
                "configSource": _config_source(facts) | {"path": facts.dockerfile.name},
                "request": parameters,
            },
            "internalParameters": {"builderPlatform": facts.platform},
            "resolvedDependencies": facts.materials,
        },
        "runDetails": {
            "builder": {"id": asked.builder_id},
            "metadata": {
                "invocationID": facts.id,
                "startedOn": times.from_seconds(facts.started_at),
                "finishedOn": times.from_seconds(facts.finished_at),
                "buildkit_hermetic": facts.hermetic,
                "buildkit_completeness": {"request": complete, "resolvedDependencies": facts.complete},
                "buildkit_reproducible": asked.reproducible,
                **({"buildkit_metadata": more} if (more := _more(facts, asked)) else {}),
            },
        },
    }
    return Predicate(PROVENANCE_V1, msgspec.json.encode(document))


def _parameters(facts: Facts, asked: Provenance) -> tuple[dict[str, Any], bool]:
    """The parameters of the frontend, and whether they are complete: `min` omits arguments, labels and secrets."""
    hidden = () if asked.full else ("build-arg:", "label:")
    arguments = {name: value for name, value in sorted(facts.options.items()) if not name.startswith(hidden)}
    parameters: dict[str, Any] = {"frontend": "dockerfile.v0"} | ({"args": arguments} if arguments else {})
    if asked.full:
        for kind, ids in (("secrets", facts.inputs.secrets), ("ssh", facts.inputs.agents)):
            named = [{"id": id} | ({"optional": True} if optional else {}) for id, optional in sorted(ids.items())]
            parameters |= {kind: named} if named else {}
    locals = [{"name": name} for name in sorted(facts.contexts)]
    return parameters | ({"locals": locals} if locals else {}), len(arguments) == len(facts.options)


def _config_source(facts: Facts) -> dict[str, Any]:
    origin = facts.origins.get(MAIN_CONTEXT)
    return {} if origin is None else {"uri": origin.address, "digest": _digest_set(origin.digest)}


def _more(facts: Facts, asked: Provenance) -> dict[str, Any]:
    found: dict[str, Any] = {"vcs": dict(sorted(facts.vcs.items()))} if facts.vcs else {}
    if asked.full:
        text = base64.b64encode(facts.dockerfile.data).decode()
        found["source"] = {"infos": [{"filename": facts.dockerfile.name, "language": "Dockerfile", "data": text}]}
    return found


def _digest_set(digest: str) -> dict[str, str]:
    return dict([digest.split(":", 1)])

"""Provenances in both versions, by value, and the settings that ask for them."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from havre.builds.provenance import Facts, Inputs, render_provenance
from havre.builds.request import DockerfileBytes, Origin, Provenance, parse_attestations
from havre.dockerfile.mounts import RunMount, parse_mount
from havre.dockerfile.plan import CopyAction, RunAction
from havre.errors import InvalidInput
from havre.oci.attestation import package_url
from havre.oci.platform import Platform
from havre.oci.reference import parse_reference

_HEX = "ab" * 32
_GIT = Origin("https://example.org/r.git#main", f"sha1:{'c' * 40}")
_OPTIONS = {"build-arg:TOKEN": "given", "label:l": "1", "target": "last", "context:more": "docker-image://x"}
_TIMES = ("2001-09-09T01:46:40.000000000Z", "2001-09-09T01:46:41.000000000Z")


def run(*mounts: RunMount, network: str = "") -> RunAction:
    return RunAction(argv=("true",), env=(), user="", cwd="/", mounts=mounts, network=network)


def told(asked: Provenance, inputs: Inputs | None = None, **changed: Any) -> Any:
    facts: dict[str, Any] = {
        "id": "b1",
        "dockerfile": DockerfileBytes("Dockerfile", b"FROM x\n"),
        "platform": "linux/amd64",
        "options": _OPTIONS,
        "contexts": {"context", "named"},
        "origins": {},
        "vcs": {},
        "inputs": inputs or Inputs(),
        "started_at": 1e9,
        "finished_at": 1e9 + 1,
    }
    predicate = render_provenance(Facts(**facts | changed), asked)
    assert predicate.type == f"https://slsa.dev/provenance/{asked.version}"
    return json.loads(predicate.document)


def test_the_least_in_both_versions() -> None:
    inputs = Inputs({"pkg:docker/x@1": f"sha256:{_HEX}", "http://h/f": "sha256:01", "https://h/r.git": "sha1:02"})
    inputs.note(run(parse_mount("type=secret,id=s")), "")
    materials = [
        {"uri": "pkg:docker/x@1", "digest": {"sha256": _HEX}},
        {"uri": "https://h/r.git", "digest": {"sha1": "02"}},
        {"uri": "http://h/f", "digest": {"sha256": "01"}},
    ]
    parameters = {
        "frontend": "dockerfile.v0",
        "args": {"context:more": "docker-image://x", "target": "last"},
        "locals": [{"name": "context"}, {"name": "named"}],
    }
    assert told(Provenance(builder_id="https://b"), inputs) == {
        "builder": {"id": "https://b"},
        "buildType": "https://mobyproject.org/buildkit@v1",
        "materials": materials,
        "invocation": {
            "configSource": {"entryPoint": "Dockerfile"},
            "parameters": parameters,
            "environment": {"platform": "linux/amd64"},
        },
        "metadata": {
            "buildInvocationID": "b1",
            "buildStartedOn": _TIMES[0],
            "buildFinishedOn": _TIMES[1],
            "completeness": {"parameters": False, "environment": True, "materials": False},
            "reproducible": False,
        },
    }
    assert told(Provenance(version="v1", builder_id="https://b", reproducible=True), inputs) == {
        "buildDefinition": {
            "buildType": "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md",
            "externalParameters": {"configSource": {"path": "Dockerfile"}, "request": parameters},
            "internalParameters": {"builderPlatform": "linux/amd64"},
            "resolvedDependencies": materials,
        },
        "runDetails": {
            "builder": {"id": "https://b"},
            "metadata": {
                "invocationID": "b1",
                "startedOn": _TIMES[0],
                "finishedOn": _TIMES[1],
                "buildkit_hermetic": False,
                "buildkit_completeness": {"request": False, "resolvedDependencies": False},
                "buildkit_reproducible": True,
            },
        },
    }


def test_all_that_is_known() -> None:
    inputs = Inputs()
    for mount in ("type=secret,id=s,required=true", "type=secret,target=/run/t", "type=secret,id=s", "type=ssh"):
        inputs.note(run(parse_mount(mount)), "none")
    vcs = {"source": "https://example.org/r.git"}
    v02 = told(Provenance(full=True), inputs, vcs=vcs)
    v1 = told(Provenance(full=True, version="v1"), inputs, vcs=vcs)
    parameters = v02["invocation"]["parameters"]
    assert parameters == v1["buildDefinition"]["externalParameters"]["request"]
    assert parameters["args"] == _OPTIONS
    assert parameters["secrets"] == [{"id": "s"}, {"id": "t", "optional": True}]
    assert parameters["ssh"] == [{"id": "default", "optional": True}]
    assert v02["metadata"]["completeness"]["parameters"]
    more = v02["metadata"]["https://mobyproject.org/buildkit@v1#metadata"]
    assert more == v1["runDetails"]["metadata"]["buildkit_metadata"]
    data = base64.b64encode(b"FROM x\n").decode()
    assert more == {
        "vcs": vcs,
        "source": {"infos": [{"filename": "Dockerfile", "language": "Dockerfile", "data": data}]},
    }


def test_a_build_of_what_is_fetched_is_complete_and_without_network_hermetic() -> None:
    inputs, fetched = Inputs(), {"contexts": set(), "origins": {"context": _GIT}, "options": {}}
    inputs.note(run(network="none"), "")
    found = told(Provenance(), inputs, **fetched)
    assert found["invocation"]["configSource"] == {
        "uri": _GIT.address,
        "digest": {"sha1": "c" * 40},
        "entryPoint": "Dockerfile",
    }
    assert found["materials"] == [{"uri": _GIT.address, "digest": {"sha1": "c" * 40}}]
    assert found["metadata"]["completeness"] == {"parameters": True, "environment": True, "materials": True}
    assert found["metadata"]["https://mobyproject.org/buildkit@v1#hermetic"] is True
    inputs.note(CopyAction(sources=("/a",), target="/", into=True), "")
    inputs.note(run(), "")
    found = told(Provenance(version="v1"), inputs, **fetched)
    assert found["buildDefinition"]["externalParameters"]["configSource"]["uri"] == _GIT.address
    metadata = found["runDetails"]["metadata"]
    assert metadata["buildkit_completeness"] == {"request": True, "resolvedDependencies": True}
    assert metadata["buildkit_hermetic"] is False


def test_an_agent_without_a_name() -> None:
    inputs = Inputs()
    inputs.note(run(RunMount(type="ssh", required=True)), "")
    assert told(Provenance(full=True), inputs)["invocation"]["parameters"]["ssh"] == [{"id": "default"}]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", Provenance()),
        ("type=provenance,mode=max,version=v1", Provenance(full=True, version="v1")),
        ("mode=full,builder-id=https://b,reproducible=true", Provenance(True, "v0.2", "https://b", reproducible=True)),
        ("mode=max,inline-only=true", Provenance(full=True)),
        ("mode=min,inline-only=true", None),  # buildx sends it unasked
        ("mode=max,disabled=true", None),
    ],
)
def test_settings(text: str, wanted: Provenance | None) -> None:
    assert parse_attestations({"provenance": text}).provenance == wanted


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("mode=most", "invalid provenance mode: most"),
        ("version=v2", "invalid provenance version: v2"),
        ("reproducible=perhaps", "invalid provenance reproducible: perhaps"),
        ("colour=red", "unknown setting of a provenance attestation: colour"),
    ],
)
def test_settings_that_are_refused(text: str, problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem):
        parse_attestations({"provenance": text})


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("busybox", "pkg:docker/busybox@latest?platform=linux%2Famd64"),
        ("localhost:5000/a/b:1", "pkg:docker/localhost%3A5000/a/b@1?platform=linux%2Famd64"),
        (f"a/b@sha256:{_HEX}", f"pkg:docker/a/b@sha256:{_HEX}?platform=linux%2Famd64"),
        (f"a/b:1@sha256:{_HEX}", f"pkg:docker/a/b@1?digest=sha256:{_HEX}&platform=linux%2Famd64"),
    ],
)
def test_package_urls_of_images(name: str, url: str) -> None:
    assert package_url(parse_reference(name).with_default_tag(), Platform("amd64", "linux")) == url

"""What is attested of an image stays with its name: built, pushed, pulled, saved, shown and removed, read by others."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from havre.oci.digest import digest_of
from support.building import Build, built_by, write_context
from support.engines import HAVRE, Engine
from support.raw import Reply, ask
from support.registry import RealRegistry, own_registry, real_registry
from support.repository import Repository
from support.waiting import until

pytestmark = pytest.mark.peer

_TEXT = "FROM busybox\nARG V\nRUN echo made > /made\n"

Kind = Callable[..., AbstractContextManager[RealRegistry]]


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return write_context(tmp_path / "context", _TEXT)


@pytest.fixture(params=["havre", "buildx"])
def build(request: pytest.FixtureRequest, havred: Engine, context: Path) -> Build:
    """Builds the context by one of the command lines with some flags; what it told."""
    return built_by(request.param, havred, context)


@pytest.fixture
def registry(havred: Engine, tmp_path: Path) -> Iterator[RealRegistry]:
    with real_registry(tmp_path / "registry", inside=havred.inside) as running:
        yield running
    names = havred.out("images", "--format", "{{.Repository}}:{{.Tag}}").split()
    havred.docker("rmi", "-f", *(name for name in names if name.startswith("localhost:")))


@pytest.fixture
def dockerd(request: pytest.FixtureRequest) -> Engine:
    """Docker's daemon, in the network namespace of ours."""
    engine: Engine = request.getfixturevalue("_dockerd")
    return engine


def inside(engine: Engine, *command: str) -> bytes:
    """Run a command where an engine is; its output."""
    done = subprocess.run([*engine.inside, *command], env=engine.env, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


class Stored:
    """What a registry has at a name."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine, self._name = engine, name
        self.raw = inside(engine, "skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}")
        self.digest = digest_of(self.raw)
        self.document: dict[str, Any] = json.loads(self.raw)

    def fetch(self, kind: str, digest: str) -> Any:
        """A document of its repository: of manifests or of blobs."""
        host, _, path = self._name.rpartition(":")[0].partition("/")
        accept = ("-H", "Accept: application/vnd.oci.image.manifest.v1+json")
        return json.loads(inside(self._engine, "curl", "-sSf", *accept, f"http://{host}/v2/{path}/{kind}/{digest}"))

    def statements(self, entry: dict[str, Any]) -> list[Any]:
        return [self.fetch("blobs", layer["digest"]) for layer in self.fetch("manifests", entry["digest"])["layers"]]


def manifests_of(engine: Engine, name: str) -> list[dict[str, Any]]:
    shown = json.loads(ask(engine.socket, "GET", f"/images/{name}/json?manifests=1").body)
    found: list[dict[str, Any]] = shown["Manifests"]
    return found


def blobs_of(engine: Engine) -> set[str]:
    return {path.name for path in (engine.root / "data" / "blobs" / "sha256").iterdir()}


def assert_attested(engine: Engine, name: str, statement: dict[str, Any]) -> None:
    """`GET /images/NAME/attestations` shows this statement alone."""

    def shown(query: str = "", version: str = "1.55") -> Reply:
        return ask(engine.socket, "GET", f"/v{version}/images/{name}/attestations{query}")

    (brief,) = shown().json
    assert sorted(brief) == ["Descriptor", "PredicateType"]
    assert brief["Descriptor"]["mediaType"] == "application/vnd.in-toto+json"
    assert brief["PredicateType"] == statement["predicateType"]
    (whole,) = shown("?statement=1&type=https://example.org/x&type=" + quote(statement["predicateType"])).json
    assert whole == {**brief, "Statement": statement}
    assert shown("?type=https://example.org/x").json == []
    platform = quote('{"os": "linux", "architecture": "s390x"}')
    assert shown(f"?platform={platform}").status == 404
    twice = shown(f"?platform={platform}&platform={platform}")
    assert twice.message == "only one platform value is currently supported"
    older = shown(version="1.54")
    needs = "GET /images/{name:.*}/attestations requires minimum API version 1.55"
    assert (older.status, older.message) == (400, needs)
    plain = ask(engine.socket, "GET", "/images/busybox/attestations")
    assert (plain.status, plain.json) == (200, [])
    assert ask(engine.socket, "GET", "/images/missing/attestations").status == 404


def test_attested_by_every_door(build: Build, havred: Engine, registry: RealRegistry, tmp_path: Path) -> None:
    name, copy = f"{registry.host}/attested:1", f"{registry.host}/elsewhere/copy:2"
    metadata = ("--metadata-file", str(tmp_path / "metadata"))
    build("-t", name, "--provenance", "mode=min", "--build-arg", "V=secret-argument", "--push", *metadata)
    stored = Stored(havred, name)
    assert json.loads((tmp_path / "metadata").read_text())["containerimage.digest"] == stored.digest
    image, attestation = stored.document["manifests"]
    assert (image["platform"], attestation["platform"]) == (
        {"architecture": "amd64", "os": "linux"},
        {"architecture": "unknown", "os": "unknown"},
    )
    assert attestation["annotations"] == {
        "vnd.docker.reference.digest": image["digest"],
        "vnd.docker.reference.type": "attestation-manifest",
    }
    (statement,) = stored.statements(attestation)
    assert f"sha256:{statement['subject'][0]['digest']['sha256']}" == image["digest"]
    assert "secret-argument" not in json.dumps(statement)
    assert statement["predicate"]["metadata"]["buildInvocationID"]
    here = manifests_of(havred, name)
    assert [(each["Kind"], each["Available"], each["ID"]) for each in here] == [
        ("image", True, image["digest"]),
        ("attestation", True, attestation["digest"]),
    ]
    assert here[1]["AttestationData"] == {"For": image["digest"]}
    assert here[1]["Size"]["Content"] == here[1]["Size"]["Total"] > attestation["size"]
    assert_attested(havred, name, statement)
    tools = ("docker", "buildx", "imagetools", "inspect", name, "--format", "{{json .Provenance}}")
    assert json.loads(inside(havred, *tools))["SLSA"] == statement["predicate"]
    verbose = json.loads(inside(havred, str(HAVRE), "manifest", "inspect", "-v", name))
    assert [each.get("Statements") for each in verbose] == [None, [statement]]
    assert [row for row in havred.out("images", "--format", "{{.Repository}}").split() if "attested" in row] == [
        name[:-2]
    ]
    tree = havred.havre("image", "ls", "--tree", check=0).stdout
    assert "unknown" not in tree

    havred.docker("rmi", "-f", name, check=0)
    havred.docker("pull", "-q", name, check=0)
    assert havred.out("run", "--rm", "--network", "none", name, "cat", "/made") == "made"
    assert [each["Available"] for each in manifests_of(havred, name)] == [True, True]
    havred.docker("tag", name, copy, check=0)
    havred.docker("push", "-q", copy, check=0)
    pushed = Stored(havred, copy)
    assert pushed.digest == stored.digest
    assert pushed.statements(attestation) == [statement]
    copying = ("skopeo", "copy", "-q", "--all", "--preserve-digests", "--src-tls-verify=false")
    inside(havred, *copying, f"docker://{copy}", f"oci:{tmp_path}/copied")


def test_read_by_others(havred: Engine, dockerd: Engine, context: Path, registry: RealRegistry, tmp_path: Path) -> None:
    name = f"{registry.host}/others:1"
    havred.havre("build", "-q", "-t", name, "--provenance", "true", "-o", "type=registry", str(context), check=0)
    stored = Stored(havred, name)
    shown = json.loads(inside(havred, "podman", "manifest", "inspect", "--tls-verify=false", name))
    assert [each["digest"] for each in shown["manifests"]] == [each["digest"] for each in stored.document["manifests"]]
    store = ("--root", str(tmp_path / "c"), "--runroot", str(tmp_path / "r"), "--storage-driver", "vfs")
    inside(havred, "podman", *store, "pull", "-q", "--tls-verify=false", name)
    with real_registry(registry.root, inside=dockerd.inside) as same:
        theirs = f"{same.host}/others:1"
        assert f"Digest: {stored.digest}" in dockerd.out("pull", theirs)
        show = ("run", "--rm", "--network", "none", theirs, "cat", "/made")  # dockerd now and then loses such an output
        until(lambda: dockerd.out(*show) == "made", "what the image holds")
        dockerd.docker("rmi", "-f", theirs, check=0)


def test_nothing_is_attested_unasked(build: Build, havred: Engine, registry: RealRegistry) -> None:
    for number, flags in enumerate(((), ("--provenance", "false"))):
        name = f"{registry.host}/plain:{number}"
        build("-t", name, *flags)
        havred.docker("push", "-q", name, check=0)
        assert "manifests" not in Stored(havred, name).document


def test_saved_and_loaded(build: Build, havred: Engine, dockerd: Engine, tmp_path: Path) -> None:
    before = blobs_of(havred)
    build("-t", "kept:1", "--provenance", "mode=max,version=v1")
    havred.docker("tag", "kept:1", "kept:2", check=0)
    archive, again = tmp_path / "kept.tar", tmp_path / "again.tar"
    havred.docker("save", "-o", str(archive), "kept:1", check=0)
    own = [each["ID"] for each in manifests_of(havred, "kept:1")]
    raw = inside(havred, "skopeo", "inspect", "--raw", f"oci-archive:{archive}")
    assert [each["digest"] for each in json.loads(raw)["manifests"]] == own
    havred.docker("rmi", "kept:1", "kept:2", check=0)
    assert blobs_of(havred) == before
    havred.docker("load", "-i", str(archive), check=0)
    assert [each["Available"] for each in manifests_of(havred, "kept:1")] == [True, True]
    havred.docker("save", "-o", str(again), "kept:1", check=0)
    assert again.read_bytes() == archive.read_bytes()
    dockerd.docker("load", "-i", str(archive), check=0)
    assert dockerd.out("run", "--rm", "--network", "none", "kept:1", "cat", "/made") == "made"
    for engine in (havred, dockerd):
        engine.docker("rmi", "-f", "kept:1", check=0)
    assert blobs_of(havred) == before


@pytest.mark.parametrize("kind", [real_registry, own_registry])
def test_every_platform_has_its_own(kind: Kind, havred: Engine, context: Path, tmp_path: Path) -> None:
    with kind(tmp_path / "registry", inside=havred.inside) as registry:
        _every_platform_has_its_own(havred, context, f"{registry.host}/several:1")


def _every_platform_has_its_own(havred: Engine, context: Path, name: str) -> None:
    (context / "Dockerfile").write_text("FROM scratch\nARG TARGETARCH\nLABEL for=$TARGETARCH\nCOPY Dockerfile /\n")
    both = ("--platform", "linux/arm64,linux/amd64")
    told = context.parent / "metadata"
    flags = ("-t", name, "--provenance", "true", "--metadata-file", str(told), *both)
    havred.havre("build", "-q", *flags, str(context), check=0)
    assert {"buildx.build.provenance/linux/amd64", "buildx.build.provenance/linux/arm64"} <= json.loads(
        told.read_text()
    ).keys()
    havred.docker("push", "-q", name, check=0)
    stored = Stored(havred, name)
    arm, amd, of_arm, of_amd = stored.document["manifests"]
    assert [each["platform"]["architecture"] for each in (arm, amd, of_arm, of_amd)] == [
        *("arm64", "amd64"),
        *("unknown", "unknown"),
    ]
    assert [each["annotations"]["vnd.docker.reference.digest"] for each in (of_arm, of_amd)] == [
        arm["digest"],
        amd["digest"],
    ]
    for entry, of in ((arm, of_arm), (amd, of_amd)):
        (statement,) = stored.statements(of)
        assert f"sha256:{statement['subject'][0]['digest']['sha256']}" == entry["digest"]
    havred.docker("rmi", "-f", name, check=0)
    havred.docker("pull", "-q", "--platform", "linux/arm64", name, check=0)
    assert {each["ID"] for each in manifests_of(havred, name) if each["Available"]} == {arm["digest"], of_arm["digest"]}
    assert havred.out("inspect", "--format", "{{.Architecture}}", name) == "arm64"
    havred.docker("pull", "-q", "--platform", "linux/amd64", name, check=0)
    assert all(each["Available"] for each in manifests_of(havred, name))
    havred.havre("rmi", "--platform", "linux/arm64", "-f", name, check=0)
    assert {each["ID"] for each in manifests_of(havred, name) if each["Available"]} == {amd["digest"], of_amd["digest"]}
    havred.docker("rmi", "-f", name, check=0)


_SERVER = """
import http.server
server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
print(server.server_port, flush=True)
server.serve_forever()
"""


@pytest.fixture
def web(havred: Engine, tmp_path: Path) -> Iterator[str]:
    """The host of a web server that has the file `f`."""
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "f").write_text("served\n")
    command = [*havred.inside, sys.executable, "-c", _SERVER]
    with subprocess.Popen(
        command, cwd=tmp_path / "served", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdout is not None
        yield f"127.0.0.1:{server.stdout.readline().strip()}"
        server.kill()
    havred.docker("builder", "prune", "-af", check=0)


def test_sources_are_materials(
    build: Build, havred: Engine, context: Path, registry: RealRegistry, web: str, tmp_path: Path
) -> None:
    """Of every kind, in a build and in the next one that finds all in the cache; credentials are no part of them."""
    name = f"{registry.host}/made-of:1"
    repository = Repository(tmp_path, {"name": "first"}, havred.inside)
    try:
        commit = repository.git("rev-parse", "HEAD")
        text = f"FROM named\nADD http://me:password@{web}/f /f\nADD {repository.url}#main /r\n"
        (context / "Dockerfile").write_text(text)
        for _ in range(2):
            build("-t", name, "--provenance", "version=v1", "--build-context", "named=docker-image://busybox")
            havred.docker("push", "-q", name, check=0)
            stored = Stored(havred, name)
            (statement,) = stored.statements(stored.document["manifests"][1])
            assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
            image, git, file = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
            assert image["uri"] == "pkg:docker/busybox@latest?platform=linux%2Famd64"
            assert git == {"uri": f"{repository.url}#main", "digest": {"sha1": commit}}
            assert file == {"uri": f"http://{web}/f", "digest": {"sha256": digest_of(b"served\n")[7:]}}
            assert "password" not in json.dumps(statement)
    finally:
        repository.close()


def test_a_context_that_is_fetched_is_the_source(havred: Engine, registry: RealRegistry, tmp_path: Path) -> None:
    repository = Repository(tmp_path, {"Dockerfile": _TEXT}, havred.inside)
    try:
        commit, address = repository.git("rev-parse", "HEAD"), f"{repository.url}#main"
        for door in (havred.havre, havred.docker):
            name = f"{registry.host}/fetched:1"
            words = ("build",) if door == havred.havre else ("buildx", "build")
            door(*words, "-q", "-t", name, "--provenance", "mode=min", address, check=0)
            havred.docker("push", "-q", name, check=0)
            stored = Stored(havred, name)
            (statement,) = stored.statements(stored.document["manifests"][1])
            source = {"uri": address, "digest": {"sha1": commit}}
            assert statement["predicate"]["invocation"]["configSource"] == source | {"entryPoint": "Dockerfile"}
            assert source in statement["predicate"]["materials"]
            assert statement["predicate"]["metadata"]["completeness"]["materials"] is True
    finally:
        repository.close()


def test_every_kind_of_statement_is_in_one_manifest(build: Build, havred: Engine, registry: RealRegistry) -> None:
    name = f"{registry.host}/both:1"
    build("-t", name, "--provenance", "true", "--sbom", "true", "--push")
    stored = Stored(havred, name)
    _, attestation = stored.document["manifests"]
    kinds = {statement["predicateType"] for statement in stored.statements(attestation)}
    assert kinds == {"https://slsa.dev/provenance/v0.2", "https://spdx.dev/Document"}
    tools = ("docker", "buildx", "imagetools", "inspect", name, "--format", "{{json .SBOM}}")
    assert json.loads(inside(havred, *tools))["SPDX"]["spdxVersion"] == "SPDX-2.3"

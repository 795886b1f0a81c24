"""What is attested of an image stays with its name: built, pushed, pulled, saved, shown and removed, read by others."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from havre.oci.digest import digest_of
from support.building import write_context
from support.engines import HAVRE, Engine
from support.raw import ask
from support.registry import RealRegistry, real_registry

pytestmark = pytest.mark.peer

_TEXT = "FROM busybox\nARG V\nRUN echo made > /made\n"

Build = Callable[..., str]


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return write_context(tmp_path / "context", _TEXT)


@pytest.fixture(params=["havre", "buildx"])
def build(request: pytest.FixtureRequest, havred: Engine, context: Path) -> Build:
    """Builds the context by one of the command lines with some flags; what it told."""

    def run(*flags: str, check: int = 0) -> str:
        if request.param == "havre":
            return havred.havre("build", *flags, str(context), check=check).stderr
        return havred.docker("buildx", "build", "--progress=plain", *flags, str(context), check=check).stderr

    return run


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


def test_attested_by_every_door(
    build: Build, havred: Engine, dockerd: Engine, registry: RealRegistry, context: Path, tmp_path: Path
) -> None:
    name, copy = f"{registry.host}/attested:1", f"{registry.host}/elsewhere/copy:2"
    build("-t", name, "--provenance", "mode=min", "--build-arg", "V=secret-argument", "--push")
    stored = Stored(havred, name)
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
    here = manifests_of(havred, name)
    assert [(each["Kind"], each["Available"], each["ID"]) for each in here] == [
        ("image", True, image["digest"]),
        ("attestation", True, attestation["digest"]),
    ]
    assert here[1]["AttestationData"] == {"For": image["digest"]}
    assert here[1]["Size"]["Content"] == here[1]["Size"]["Total"] > attestation["size"]
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

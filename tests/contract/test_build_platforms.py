"""One Dockerfile built for several platforms: the name's index, archives, files, and what is shown."""

from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.building import write_context
from support.engines import Engine
from support.registry import RealRegistry, real_registry

pytestmark = pytest.mark.peer

_TEXT = """\
FROM --platform=$BUILDPLATFORM busybox AS make
RUN echo compiled > /shared
ARG TARGETARCH
RUN echo for $TARGETARCH > /own
FROM scratch
COPY --from=make /shared /own /
COPY file /
CMD ["/own"]
"""
_BOTH = ("--platform", "linux/arm64,linux/amd64")


@pytest.fixture
def context(tmp_path: Path) -> Path:
    directory = write_context(tmp_path / "context", _TEXT)
    (directory / "file").write_text("from the context\n")
    return directory


@pytest.fixture
def registry(havred: Engine, tmp_path: Path) -> Iterator[RealRegistry]:
    with real_registry(tmp_path / "registry", inside=havred.inside) as running:
        yield running


def inspect(engine: Engine, name: str, platform: str, form: str) -> str:
    told = engine.havre("image", "inspect", "--format", form, "--platform", platform, name, check=0).stdout
    return told.strip()


def test_a_name_for_every_platform(havred: Engine, context: Path, registry: RealRegistry, tmp_path: Path) -> None:
    name, ids = f"{registry.host}/built:1", tmp_path / "iid"
    drawn = tmp_path / "graph.svg"
    flags = ("-t", name, "-t", "built:2", *_BOTH, "--iidfile", str(ids), "--progress=plain", "--graph", str(drawn))
    shown = havred.havre("build", *flags, str(context), check=0).stderr
    assert "linux/arm64 stage-1" in drawn.read_text()
    assert drawn.read_text().count("<path") == 2
    havred.havre("push", "-q", name, check=0)
    assert "[linux/arm64 make 2/3] RUN echo compiled" in shown
    assert "[linux/amd64 stage-1 3/3] COPY file /" in shown
    for architecture in ("amd64", "arm64"):
        assert inspect(havred, "built:2", f"linux/{architecture}", "{{.Architecture}}") == architecture
        id = inspect(havred, name, f"linux/{architecture}", "{{.Id}}")
        havred.docker("create", "--name", architecture, id, check=0)
        havred.docker("cp", f"{architecture}:/own", str(tmp_path / architecture), check=0)
        assert (tmp_path / architecture).read_text() == f"for {architecture}\n"
        havred.docker("rm", architecture, check=0)
    assert ids.read_text() == havred.out("inspect", "--format", "{{.Id}}", name)
    look = [*havred.inside, "skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}"]
    raw = subprocess.run(look, capture_output=True, text=True, check=True, timeout=60)
    pushed = json.loads(raw.stdout)["manifests"]
    assert [entry["platform"]["architecture"] for entry in pushed] == ["arm64", "amd64"]
    again = havred.havre("build", "-t", "built:2", *_BOTH, "--progress=plain", str(context), check=0).stderr
    assert again.count("CACHED") >= 6
    assert inspect(havred, "built:2", "linux/arm64", "{{.Id}}") == inspect(havred, name, "linux/arm64", "{{.Id}}")


def test_archives_and_files_of_every_platform(havred: Engine, context: Path, tmp_path: Path) -> None:
    before = set(havred.out("images", "-aq", "--no-trunc").split())
    layout, files, tar = tmp_path / "layout", tmp_path / "files", tmp_path / "files.tar"
    outputs = (f"type=oci,tar=false,dest={layout}", f"type=local,dest={files}", f"type=tar,dest={tar}")
    havred.havre("build", *_BOTH, *(word for each in outputs for word in ("-o", each)), str(context), check=0)
    top = json.loads((layout / "index.json").read_text())["manifests"][0]
    index = json.loads((layout / "blobs" / "sha256" / top["digest"][7:]).read_text())
    assert {entry["platform"]["architecture"] for entry in index["manifests"]} == {"amd64", "arm64"}
    for architecture in ("amd64", "arm64"):
        assert (files / f"linux_{architecture}" / "own").read_text() == f"for {architecture}\n"
    with tarfile.open(tar) as found:
        assert {f"linux_{each}/file" for each in ("amd64", "arm64")} <= set(found.getnames())
    assert set(havred.out("images", "-aq", "--no-trunc").split()) - before <= {
        havred.out("inspect", "--format", "{{.Id}}", "busybox")
    }


def test_by_buildx(havred: Engine, context: Path, registry: RealRegistry, tmp_path: Path) -> None:
    """It takes our engine for one that can, by a label of the worker's."""
    name, archive = f"{registry.host}/buildx:1", tmp_path / "image.tar"
    build = ("buildx", "build", "-q", *_BOTH, str(context))
    havred.docker(*build, "-t", name, check=0)
    for architecture in ("amd64", "arm64"):
        assert inspect(havred, name, f"linux/{architecture}", "{{.Architecture}}") == architecture
    havred.docker(*build, "-t", name, "-o", f"type=oci,dest={archive}", "--provenance", "true", check=0)
    with tarfile.open(archive) as tar:
        (top,) = json.load(tar.extractfile("index.json"))["manifests"]  # type: ignore[arg-type]
        index = json.load(tar.extractfile(f"blobs/sha256/{top['digest'][7:]}"))  # type: ignore[arg-type]
    platforms = [entry["platform"]["architecture"] for entry in index["manifests"]]
    assert sorted(platforms) == ["amd64", "arm64", "unknown", "unknown"]
    refused = havred.docker(*build, "-o", str(tmp_path / "files"), check=1).stderr
    assert "files for several platforms are not exported as local" in refused
    havred.docker("rmi", "-f", name, check=0)


def test_a_platform_given_twice(havred: Engine, context: Path) -> None:
    havred.havre("build", "-q", "-t", "twice:1", "--platform", "arm64,linux/arm64/v8", str(context), check=0)
    assert havred.out("inspect", "--format", "{{.Architecture}}", "twice:1") == "arm64"
    havred.docker("rmi", "-f", "twice:1", check=0)


def test_what_cannot_be_built_for_several(havred: Engine, context: Path) -> None:
    def refused(*flags: str) -> str:
        return havred.havre("build", "-t", "never:1", *flags, str(context), check=1).stderr

    assert "invalid platform 'linux/'" in refused("--platform", "linux/amd64,linux/")
    assert "a cache is exported for one platform at a time" in refused(*_BOTH, "--cache-to", "type=local,dest=/tmp/x")
    (context / "Dockerfile").write_text("FROM busybox\nRUN true\n")
    assert "no interpreter for s390x is registered" in refused("--platform", "linux/amd64,linux/s390x")
    assert havred.out("images", "-q", "never") == ""


def test_the_classic_stream_counts_on(havred: Engine, context: Path) -> None:
    query = {"platform": "linux/arm64,linux/amd64", "t": "classic:1"}
    told = list(havred.sdk().api.build(path=str(context), tag="classic:1", platform=query["platform"], decode=True))
    steps = [line["stream"].split(" :")[0] for line in told if line.get("stream", "").startswith("Step ")]
    assert steps == [f"Step {number}/16" for number in range(1, 17)]
    assert havred.out("inspect", "--format", "{{.Architecture}}", "classic:1") == "amd64"

"""One Dockerfile built for several platforms: the name's index, archives, files, and what is shown."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


def build(engine: Engine, client: str, *arguments: str) -> None:
    """Build by `havre` or `buildx`."""
    if client == "havre":
        engine.havre("build", *arguments, check=0)
    else:
        engine.docker("buildx", "build", *arguments, check=0)


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
    assert "[internal] load build context\n" in shown
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
    havred.docker("rmi", "-f", name, check=0)


def test_files_by_buildx(havred: Engine, context: Path, tmp_path: Path) -> None:
    files, tar, alone = tmp_path / "files", tmp_path / "files.tar", tmp_path / "alone"
    build = ("buildx", "build", "-q", str(context))
    havred.docker(*build, *_BOTH, "-o", str(files), check=0)
    havred.docker(*build, *_BOTH, "-o", f"type=tar,dest={tar}", check=0)
    with tarfile.open(tar) as found:
        found.extractall(tmp_path / "unpacked", filter="data")
    for directory in (files, tmp_path / "unpacked"):
        assert {each.name for each in directory.iterdir()} == {"linux_amd64", "linux_arm64"}
        for architecture in ("amd64", "arm64"):
            below = directory / f"linux_{architecture}"
            assert (below / "own").read_text() == f"for {architecture}\n"
            assert (below / "file").read_text() == "from the context\n"
    havred.docker(*build, "-o", f"type=local,dest={alone},platform-split=true", check=0)
    assert (alone / "linux_amd64" / "own").read_text() == "for amd64\n"
    for command in (havred.docker, havred.havre):
        flags = (*build[command == havred.havre :], *_BOTH, "-o", f"type=local,dest={alone},platform-split=false")
        assert "platform-split=false is not supported for several platforms" in command(*flags, check=1).stderr


@pytest.mark.parametrize("client", ["havre", "buildx"])
def test_a_layout_in_a_directory(havred: Engine, context: Path, tmp_path: Path, client: str) -> None:
    """Of one platform and of both, into the same directory."""
    layout, metadata = tmp_path / "layout", tmp_path / "metadata"

    def read(digest: str) -> Any:
        content = (layout / "blobs" / digest.replace(":", "/")).read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest.removeprefix("sha256:")
        return json.loads(content) if content.startswith(b"{") else None

    for flags in (("--platform", "linux/amd64"), _BOTH):
        output = ("-o", f"type=oci,tar=false,dest={layout}", "--metadata-file", str(metadata))
        build(havred, client, *flags, "-q", "-t", "laid/out:1", *output, str(context))
    digest = json.loads(metadata.read_text())["containerimage.digest"]
    (top,) = (each for each in json.loads((layout / "index.json").read_text())["manifests"] if each["digest"] == digest)
    assert top["annotations"]["org.opencontainers.image.ref.name"] in ("1", "docker.io/laid/out:1")
    found = []
    for entry in read(digest)["manifests"]:
        manifest = read(entry["digest"])
        found.append(read(manifest["config"]["digest"])["architecture"])
        assert [read(layer["digest"]) for layer in manifest["layers"]] == [None, None]
    assert sorted(found) == ["amd64", "arm64"]
    assert "laid/out" not in havred.out("images")


def test_a_docker_archive_in_a_directory(havred: Engine, context: Path, tmp_path: Path) -> None:
    unpacked, tar = tmp_path / "unpacked", tmp_path / "archive.tar"
    flags = ("-q", "-t", "laid/out:1", "-o", f"type=docker,tar=false,dest={unpacked}")
    havred.havre("build", *flags, str(context), check=0)
    with tarfile.open(tar, "w") as archive:
        archive.add(unpacked, "")
    havred.docker("load", "-q", "-i", str(tar), check=0)
    assert havred.out("inspect", "--format", "{{.Config.Cmd}}", "laid/out:1") == "[/own]"
    havred.docker("rmi", "-f", "laid/out:1", check=0)


_MEETING = """\
FROM --platform=$BUILDPLATFORM busybox AS make
RUN cat /proc/sys/kernel/random/uuid > /shared
ARG TARGETARCH
RUN --mount=type=cache,target=/meet touch /meet/$TARGETARCH; for turn in $(seq 300); do \
      if [ -e /meet/amd64 ] && [ -e /meet/arm64 ]; then exit 0; fi; sleep 0.1; done; exit 1
FROM scratch
COPY --from=make /shared /
"""


def test_side_by_side(havred: Engine, context: Path, tmp_path: Path) -> None:
    """Commands of both platforms run at the same time; one that is for neither runs once, also without a cache."""
    (context / "Dockerfile").write_text(_MEETING)
    havred.havre("build", "-q", "--no-cache", *_BOTH, "-o", str(tmp_path / "files"), str(context), check=0)
    first, second = ((tmp_path / "files" / f"linux_{each}" / "shared").read_text() for each in ("amd64", "arm64"))
    assert first == second
    (context / "Dockerfile").write_text(_MEETING.replace("exit 0", "exit $([ $TARGETARCH = arm64 ] && echo 3)"))
    failed = havred.havre("build", "-q", "--no-cache", *_BOTH, "-t", "never:1", str(context), check=3).stderr
    assert "exit code: 3" in failed
    assert havred.out("images", "-q", "never") == ""
    havred.docker("builder", "prune", "-af", check=0)


_CACHED = """\
FROM --platform=$BUILDPLATFORM busybox AS make
ARG TARGETARCH
RUN echo $TARGETARCH $(cat /proc/sys/kernel/random/uuid) > /made
FROM scratch
COPY --from=make /made /
"""


@pytest.mark.parametrize("client", ["havre", "buildx"])
def test_one_cache_of_all(havred: Engine, context: Path, registry: RealRegistry, tmp_path: Path, client: str) -> None:
    """What one build exports is there for all platforms, and for a build of one of them."""
    (context / "Dockerfile").write_text(_CACHED)
    directory, files = tmp_path / "cache", tmp_path / "files"
    ref = f"type=registry,ref={registry.host}/cache:1"
    for target, source in ((ref, ref), (f"type=local,dest={directory}", f"type=local,src={directory}")):
        made = []
        for flags in (("--cache-to", f"{target},mode=max"), ("--cache-from", source)):
            build(havred, client, "-q", *_BOTH, *flags, "-o", str(files), str(context))
            made.append([(files / f"linux_{each}" / "made").read_text() for each in ("amd64", "arm64")])
            havred.docker("builder", "prune", "-af", check=0)
        assert made[0] == made[1]
        alone = ("--platform", "linux/arm64", "--cache-from", source, "-o", str(files))
        build(havred, client, "-q", *alone, str(context))
        assert (files / "made").read_text() == made[0][1]
        havred.docker("builder", "prune", "-af", check=0)


def test_a_platform_given_twice(havred: Engine, context: Path) -> None:
    havred.havre("build", "-q", "-t", "twice:1", "--platform", "arm64,linux/arm64/v8", str(context), check=0)
    assert havred.out("inspect", "--format", "{{.Architecture}}", "twice:1") == "arm64"
    havred.docker("rmi", "-f", "twice:1", check=0)


def test_what_cannot_be_built_for_several(havred: Engine, context: Path) -> None:
    def refused(*flags: str) -> str:
        return havred.havre("build", "-t", "never:1", *flags, str(context), check=1).stderr

    assert "invalid platform 'linux/'" in refused("--platform", "linux/amd64,linux/")
    (context / "Dockerfile").write_text("FROM busybox\nRUN true\n")
    assert "no interpreter for s390x is registered" in refused("--platform", "linux/amd64,linux/s390x")
    assert havred.out("images", "-q", "never") == ""


def test_the_classic_stream_counts_on(havred: Engine, context: Path) -> None:
    query = {"platform": "linux/arm64,linux/amd64", "t": "classic:1"}
    told = list(havred.sdk().api.build(path=str(context), tag="classic:1", platform=query["platform"], decode=True))
    steps = [line["stream"].split(" :")[0] for line in told if line.get("stream", "").startswith("Step ")]
    assert steps == [f"Step {number}/16" for number in range(1, 17)]
    assert havred.out("inspect", "--format", "{{.Architecture}}", "classic:1") == "amd64"

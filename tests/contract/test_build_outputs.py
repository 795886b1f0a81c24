"""Where a build's result goes: archives in every form, by havre's command line and by buildx, read by other tools."""

from __future__ import annotations

import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from support.building import Build, built_by, write_context
from support.engines import Engine
from support.registry import real_registry

pytestmark = pytest.mark.peer

_TEXT = "FROM busybox\nRUN echo made > /made\nENV A=1\n"
_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return write_context(tmp_path / "context", _TEXT)


@pytest.fixture
def dockerd(request: pytest.FixtureRequest) -> Engine:
    """Docker's daemon, beside ours."""
    engine: Engine = request.getfixturevalue("_dockerd")
    return engine


@pytest.fixture(params=["havre", "buildx"])
def build(request: pytest.FixtureRequest, havred: Engine, context: Path) -> Build:
    """Builds the context by one of the command lines with some flags; what it told."""
    return built_by(request.param, havred, context)


def _skopeo(*arguments: str) -> dict[str, object]:
    told = subprocess.run(["skopeo", "inspect", *arguments], capture_output=True, text=True, check=True).stdout
    found: dict[str, object] = json.loads(told)
    return found


def test_an_oci_layout(build: Build, havred: Engine, tmp_path: Path) -> None:
    archive, metadata = tmp_path / "image.tar", tmp_path / "metadata"
    more = f"type=oci,dest={archive},compression=zstd,annotation.org.example=yes"
    build("-t", "laid/out:1", "-o", more, "--metadata-file", str(metadata))
    told = json.loads(metadata.read_text())
    manifest = _skopeo("--raw", f"oci-archive:{archive}")
    assert manifest["annotations"] == {"org.example": "yes"}
    assert {layer["mediaType"] for layer in manifest["layers"]} == {_GZIP.replace("gzip", "zstd")}  # type: ignore[attr-defined]
    found = _skopeo(f"oci-archive:{archive}:1")
    assert found["Digest"] == told["containerimage.digest"] != told["containerimage.config.digest"]
    assert found["Env"][-1] == "A=1"  # type: ignore[index]
    assert told["image.name"] == "docker.io/laid/out:1"
    assert "laid/out" not in havred.out("images")
    store = ("--root", str(tmp_path / "c"), "--runroot", str(tmp_path / "r"), "--storage-driver", "vfs")
    pulled = ["podman", *store, "pull", "-q", f"oci-archive:{archive}"]
    subprocess.run(pulled, check=True, capture_output=True)
    shown = subprocess.run(["podman", *store, "images", "-q"], check=True, capture_output=True, text=True).stdout
    assert told["containerimage.config.digest"].removeprefix("sha256:").startswith(shown.strip())
    assert "unsupported layer compression type: lz4" in build("-o", f"type=oci,dest={archive},compression=lz4", check=1)


def _member(archive: Path, name: str) -> dict[str, Any]:
    with tarfile.open(archive) as tar:
        found: dict[str, Any] = json.loads(tar.extractfile(name).read())  # type: ignore[union-attr]
    return found


def _annotated(*levels: str) -> list[str]:
    """Flags for annotations that are named as their level."""
    return [flag for level in levels for flag in ("--annotation", f"{level}:{level}=yes")]


def test_annotations_at_every_level(havred: Engine, tmp_path: Path) -> None:
    archive, context = tmp_path / "image.tar", write_context(tmp_path / "two", "FROM scratch\nLABEL a=b\n")
    build = built_by("buildx", havred, context)
    levels = _annotated("manifest", "manifest-descriptor", "index", "index-descriptor")
    own = ("--annotation", "manifest-descriptor[linux/arm64]:arm=yes")
    build("-t", "noted:1", "-o", f"type=oci,dest={archive}", "--platform", "linux/amd64,linux/arm64", *levels, *own)
    (top,) = _member(archive, "index.json")["manifests"]
    assert top["annotations"]["index-descriptor"] == "yes"
    assert top["annotations"]["org.opencontainers.image.ref.name"] == "1"
    index = _member(archive, f"blobs/sha256/{top['digest'][7:]}")
    assert index["annotations"] == {"index": "yes"}
    entries = {entry["platform"]["architecture"]: entry for entry in index["manifests"]}
    assert entries["amd64"]["annotations"] == {"manifest-descriptor": "yes"}
    assert entries["arm64"]["annotations"] == {"manifest-descriptor": "yes", "arm": "yes"}
    for entry in entries.values():
        assert _member(archive, f"blobs/sha256/{entry['digest'][7:]}")["annotations"] == {"manifest": "yes"}


def test_annotations_that_have_no_place(havred: Engine, context: Path, tmp_path: Path) -> None:
    build, archive = built_by("buildx", havred, context), f"type=oci,dest={tmp_path / 'image.tar'}"
    told = build("-o", archive, *_annotated("index-descriptor"), check=1)
    assert "index annotations not supported for single platform export" in told
    told = build("-o", archive, "--annotation", "manifest[linux/s390x]:a=b", check=1)
    assert "invalid annotation: no platform linux/s390x found in source" in told
    told = build("--load", "--annotation", "a=b", check=1)
    assert "needs push=true: stored images have no annotations" in told


def test_an_archive_that_dockerd_loads(build: Build, havred: Engine, dockerd: Engine, tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    build("-o", f"type=docker,dest={archive},name=archived:1,compression=gzip")
    for engine in (havred, dockerd):
        assert "archived:1" in engine.out("load", "-i", str(archive))
        assert engine.out("run", "--rm", "--network", "none", "archived:1", "cat", "/made") == "made"
        engine.docker("rmi", "-f", "archived:1", check=0)


def test_by_our_command_line_alone(havred: Engine, dockerd: Engine, context: Path, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    for _ in range(2):  # into a directory that has one already
        havred.havre("build", "-o", f"type=oci,dest={layout},tar=false", str(context), check=0)
    assert _skopeo("--raw", f"oci:{layout}")["layers"][0]["mediaType"] == _GZIP  # type: ignore[index]
    refused = dockerd.havre("build", "-o", f"type=oci,dest={tmp_path / 'x'}", str(context), check=1)
    assert "an output of type oci needs havre's daemon" in refused.stderr
    refused = havred.havre("build", "-o", f"type=oci,dest={layout},colour=red", str(context), check=1)
    assert "the output's setting 'colour' is not supported for the type oci" in refused.stderr
    with tarfile.open(tmp_path / "saved.tar", "w") as tar:
        tar.add(layout, "")
    loaded = havred.out("load", "-i", str(tmp_path / "saved.tar")).split()[-1]
    assert havred.out("run", "--rm", "--network", "none", loaded, "cat", "/made") == "made"
    havred.docker("rmi", "-f", loaded, check=0)


def test_pushed(havred: Engine, context: Path, tmp_path: Path) -> None:
    with real_registry(tmp_path / "registry", inside=havred.inside) as registry:
        for number, flags in enumerate((("--push",), ("-o", "type=registry"), ("-o", "type=image,push=true"))):
            name = f"{registry.host}/pushed:{number}"
            havred.havre("build", "-t", name, *flags, str(context), check=0)
            havred.docker("rmi", name, check=0)
            assert havred.havre("run", "--rm", "--network", "none", name, "cat", "/made", check=0).stdout == "made\n"
            havred.docker("rmi", "-f", name, check=0)
        assert "tag is needed" in havred.havre("build", "--push", str(context), check=1).stderr


def test_attested(build: Build, havred: Engine, tmp_path: Path) -> None:
    archive, metadata = tmp_path / "image.tar", tmp_path / "metadata"
    flags = ("-t", "attested:1", "--build-arg", "V=given", "--metadata-file", str(metadata))
    build(*flags, "--provenance", "mode=max", "-o", f"type=oci,dest={archive}")
    with tarfile.open(archive) as tar:

        def read(name: str) -> dict[str, object]:
            found: dict[str, object] = json.load(tar.extractfile(name))  # type: ignore[arg-type]
            return found

        def blob(digest: str) -> dict[str, object]:
            return read(f"blobs/sha256/{digest.removeprefix('sha256:')}")

        (top,) = read("index.json")["manifests"]  # type: ignore[misc]
        image, attestation = blob(top["digest"])["manifests"]  # type: ignore[misc]
        assert top["digest"] == json.loads(metadata.read_text())["containerimage.digest"]
        assert image["platform"] == {"architecture": "amd64", "os": "linux"}
        assert attestation["platform"] == {"architecture": "unknown", "os": "unknown"}
        assert attestation["annotations"] == {
            "vnd.docker.reference.digest": image["digest"],
            "vnd.docker.reference.type": "attestation-manifest",
        }
        (layer,) = blob(attestation["digest"])["layers"]  # type: ignore[misc]
        assert layer["annotations"] == {"in-toto.io/predicate-type": "https://slsa.dev/provenance/v0.2"}
        statement = blob(layer["digest"])
    (subject,) = statement["subject"]  # type: ignore[misc]
    assert subject["name"] == "pkg:docker/attested@1?platform=linux%2Famd64"
    assert f"sha256:{subject['digest']['sha256']}" == image["digest"]
    predicate: dict[str, dict[str, dict[str, str]]] = statement["predicate"]  # type: ignore[assignment]
    assert predicate["invocation"]["parameters"]["args"] == {"build-arg:V": "given"}  # type: ignore[comparison-overlap]
    assert predicate["materials"][0]["uri"] == "pkg:docker/busybox@latest?platform=linux%2Famd64"  # type: ignore[index]
    assert _skopeo(f"oci-archive:{archive}")["Os"] == "linux"
    assert "attested:1" in havred.out("load", "-i", str(archive))
    havred.docker("rmi", "attested:1", check=0)
    assert "invalid provenance mode: most" in build("--provenance", "mode=most", check=1)
    build("--provenance", "false")


def test_attestations_of_an_image_without_a_name(havred: Engine, context: Path, tmp_path: Path) -> None:
    """It keeps none; the metadata tell them."""
    metadata = tmp_path / "metadata"
    flags = ("-q", "--metadata-file", str(metadata), str(context))
    havred.havre("build", "--attest", "type=provenance,builder-id=https://example.org", *flags, check=0)
    told = json.loads(metadata.read_text())["buildx.build.provenance"]
    assert told["builder"] == {"id": "https://example.org"}
    assert "args" not in told["invocation"]["parameters"]

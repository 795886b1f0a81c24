"""`compose publish`: files in a registry, in docker compose's format."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest

from support.composing import Both
from support.registry import RealRegistry, real_registry

_FILE = "name: {name}\nservices:\n  web: {{image: 'busybox:${{TAG:-latest}}', {more}}}  # kept\n"


def _get(registry: RealRegistry, path: str) -> bytes:
    headers = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    with urllib.request.urlopen(urllib.request.Request(f"http://{registry.host}/v2/{path}", headers=headers)) as answer:
        return bytes(answer.read())


@pytest.mark.parametrize("version", ["", "1.0"])
def test_files_are_published_as_they_are_written(ours: Both, tmp_path: Path, version: str) -> None:
    ours.write(_FILE.format(name=ours.name, more="command: 'true'"))
    (more := ours.folder / "more.yaml").write_text("services: {web: {scale: 2}}\n")
    with real_registry(tmp_path / "registry") as registry:
        words = ("-f", str(more), "publish", f"{registry.host}/app:1", *(("--oci-version", version) if version else ()))
        ours.havre(*words)
        manifest = json.loads(_get(registry, "app/manifests/1"))
        kind = "application/vnd.docker.compose.project"
        assert manifest.get("artifactType") == (None if version else kind)
        if version:
            assert manifest["config"]["mediaType"] == "application/vnd.docker.compose.config.empty.v1+json"
        assert _get(registry, f"app/blobs/{manifest['config']['digest']}") == b"{}"
        layers = manifest["layers"]
        assert {layer["mediaType"] for layer in layers} == {"application/vnd.docker.compose.file+yaml"}
        names = [layer["annotations"]["com.docker.compose.file"] for layer in layers]
        assert names == ["compose.yaml", "more.yaml"]
        texts = [_get(registry, f"app/blobs/{layer['digest']}").decode() for layer in layers]
        assert texts == [ours.file.read_text(), more.read_text()]


def test_what_files_give_away_is_asked_about(ours: Both, tmp_path: Path) -> None:
    with real_registry(tmp_path / "registry") as registry:
        target = f"{registry.host}/app:1"
        more = "environment: {SECRET: x}, volumes: ['./here:/here']"
        ours.write(_FILE.format(name=ours.name, more=more))
        told = ours.havre("publish", target, check=1)
        assert 'service "web" sets SECRET' in told.stderr
        assert f'service "web" mounts {ours.folder}/here' in told.stderr
        assert "SECRET" not in ours.havre("publish", "--with-env", target, check=1).stderr
        with pytest.raises(urllib.error.HTTPError):
            _get(registry, "app/manifests/1")
        ours.havre("publish", "--yes", target)
        assert _get(registry, "app/manifests/1")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("services: {s: {build: .}}", "without an image"),
        ("services: {s: {image: i, env_file: ./vars}}", "env_file"),
        ("services: {s: {extends: {service: o, file: other.yaml}}}", "extends"),
        ("include: [other.yaml]", "local includes"),
    ],
)
def test_files_that_mean_something_else_elsewhere_are_refused(ours: Both, text: str, told: str) -> None:
    (ours.folder / "vars").write_text("A=b\n")
    (ours.folder / "other.yaml").write_text("services: {o: {image: busybox}}\n")
    ours.write(f"name: {ours.name}\n{text}\n")
    assert told in ours.havre("publish", "localhost:1/app:1", check=1).stderr

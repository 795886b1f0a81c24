"""Build caches that travel: an engine that has none builds wholly cached from an image, a registry or a directory."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from support.building import docker_build, write_context
from support.engines import Engine
from support.raw import ask
from support.registry import real_registry

_TEXT = "FROM busybox\nRUN date +%N > /made\nCOPY a /a\nWORKDIR /w\nENV X=1\n"


def _forget(engine: Engine, *images: str) -> None:
    engine.docker("rmi", "-f", *images, check=0)
    engine.docker("builder", "prune", "-af", check=0)


@pytest.mark.peer
def test_by_way_of_a_registry(havred: Engine, tmp_path: Path) -> None:
    context = write_context(tmp_path / "context", _TEXT, {"a": "x"})
    with real_registry(tmp_path / "registry", inside=havred.inside) as registry:
        image = f"{registry.host}/cached:1"
        build = ("buildx", "build", "--progress=plain", "-t", image, str(context))
        havred.docker(*build, "--push", "--cache-to", "type=inline", check=0)
        id = havred.out("image", "inspect", "-f", "{{.Id}}", image)
        _forget(havred, image)
        told = havred.docker(*build, "--cache-from", f"type=registry,ref={image}", "--cache-to", "type=inline", check=0)
        assert told.stderr.count(" CACHED\n") == 4, told.stderr
        assert havred.out("image", "inspect", "-f", "{{.Id}}", image) == id
        _forget(havred, image)
        havred.docker("pull", "-q", image, check=0)
        classic = docker_build(havred, context, "--cache-from", image).stdout
        assert classic.count("Using cache") == 3
        (context / "a").write_text("y")
        _forget(havred, image)
        missing = f"type=registry,ref={registry.host}/nowhere:1"
        changed = havred.docker(*build, "--cache-from", image, "--cache-from", missing, check=0).stderr
        assert changed.count(" CACHED\n") == 2
        _forget(havred, image)


def test_only_named_images_count(havred: Engine, tmp_path: Path) -> None:
    context = write_context(tmp_path / "context", _TEXT, {"a": "x"})
    docker_build(havred, context, "-t", "inline:1", "--build-arg", "BUILDKIT_INLINE_CACHE=1")
    havred.docker("builder", "prune", "-af", check=0)
    assert "Using cache" not in docker_build(havred, context).stdout
    havred.docker("builder", "prune", "-af", check=0)
    havred.havre("build", "-t", "again:1", "--cache-from", "inline:1", str(context), check=0)
    first, again = (
        havred.out("image", "inspect", "-f", "{{json .RootFS}}", f"{name}:1") for name in ("inline", "again")
    )
    assert first == again
    havred.docker("rmi", "-f", "inline:1", "again:1", check=0)
    havred.docker("image", "prune", "-f", check=0)
    havred.docker("builder", "prune", "-af", check=0)


_STAGES = """FROM busybox AS made
RUN cat /proc/sys/kernel/random/uuid > /made
FROM busybox
COPY --from=made /made /
RUN cat /proc/sys/kernel/random/uuid > /again
"""


@pytest.mark.peer
@pytest.mark.parametrize("client", ["havre", "buildx"])
def test_of_all_stages(havred: Engine, tmp_path: Path, client: str) -> None:
    """In a registry or a directory: with `mode=max` every step is there, with `min` those of the last stage alone."""
    context = write_context(tmp_path / "context", _STAGES)
    iid, directory = tmp_path / "iid", tmp_path / "cache"

    def build(*flags: str, check: int = 0) -> str:
        command = ("--progress=plain", "--iidfile", str(iid), *flags, str(context))
        if client == "havre":
            return havred.havre("build", *command, check=check).stderr
        return havred.docker("buildx", "build", *command, check=check).stderr

    with real_registry(tmp_path / "registry", inside=havred.inside) as registry:
        ref = f"type=registry,ref={registry.host}/cache:1"
        pairs = {
            f"{ref},mode=max": (ref, 3),
            f"type=local,dest={directory},mode=max": (f"type=local,src={directory}", 3),
            f"{ref},mode=min": (ref, 0),
        }
        for target, (source, cached) in pairs.items():
            build("--cache-to", target)
            image = iid.read_text()
            _forget(havred, image)
            told = build("--cache-from", source)
            assert "ERROR" not in told
            assert told.count(" CACHED\n") == 2 + cached, told  # with the two bases
            assert (iid.read_text() == image) == (cached == 3), told
            _forget(havred, iid.read_text())
        assert "cache:1" not in havred.out("images"), "a cache is no image of this engine"
        nowhere = f"type=registry,ref={registry.host.partition(':')[0]}:1/cache"
        assert "ERROR" in build("--cache-to", nowhere, check=1)
        build("--cache-to", f"{nowhere},ignore-error=true")
        build("--cache-from", nowhere, "--cache-from", f"type=local,src={tmp_path / 'none'}")
        _forget(havred, iid.read_text())


@pytest.mark.peer
def test_a_directory_of_lies(havred: Engine, tmp_path: Path) -> None:
    """A cache whose layer is another one than it says is no cache: the step is done anew."""
    context, cache = write_context(tmp_path / "context", _STAGES), tmp_path / "cache"
    build = ("build", "-q", str(context), "--cache-from", f"type=local,src={cache}")
    image = havred.havre(*build, "--cache-to", f"type=local,dest={cache},mode=max", check=0).stdout.strip()
    index = json.loads((cache / "index.json").read_bytes())
    manifest = json.loads((cache / "blobs/sha256" / index["manifests"][0]["digest"][7:]).read_bytes())
    for layer in manifest["layers"]:
        blob = cache / "blobs/sha256" / layer["digest"][7:]
        blob.write_bytes(blob.read_bytes()[:-8] + bytes(8))
    _forget(havred, image)
    again = havred.havre(*build, check=0).stdout.strip()
    assert again not in ("", image)
    _forget(havred, again)
    image = havred.havre(*build, "--cache-to", f"type=local,dest={cache},mode=max", check=0).stdout.strip()
    index = json.loads((cache / "index.json").read_bytes())
    manifest = json.loads((cache / "blobs/sha256" / index["manifests"][0]["digest"][7:]).read_bytes())
    with (cache / "blobs/sha256" / manifest["config"]["digest"][7:]).open("a") as document:
        document.write(" ")
    _forget(havred, image)
    again = havred.havre(*build, check=0).stdout.strip()
    assert again not in ("", image)
    (cache / "index.json").write_text("{")
    refused = havred.havre(*build, check=1)
    assert f"the cache in {cache} cannot be read: index.json" in refused.stderr
    _forget(havred, again)


def test_what_a_cache_does_not_tell(havred: Engine, tmp_path: Path) -> None:
    """Values of build arguments; who finds a step in a cache knows its text."""
    text = _STAGES.replace("AS made\n", "AS made\nARG TOKEN\n")
    context, cache = write_context(tmp_path / "context", text), tmp_path / "cache"
    build = ("build", "-q", str(context), "--build-arg", "TOKEN=not-for-all")
    image = havred.havre(*build, "--cache-to", f"type=local,dest={cache},mode=max", check=0).stdout.strip()
    assert not [path for path in (cache / "blobs/sha256").iterdir() if b"not-for-all" in path.read_bytes()]
    _forget(havred, image)
    assert havred.havre(*build, "--cache-from", f"type=local,src={cache}", check=0).stdout.strip() == image
    records = [record["Description"] for record in ask(havred.socket, "GET", "/system/df").json["BuildCache"]]
    assert any("TOKEN=not-for-all" in record and "> /made" in record for record in records), records
    _forget(havred, image)


@pytest.mark.peer
def test_a_directory_that_was_cut_off(havred: Engine, tmp_path: Path) -> None:
    """What buildx keeps of a blob that a build has begun and not ended is overwritten by the next build."""
    context, cache = write_context(tmp_path / "context", _STAGES), tmp_path / "cache"
    build = ("buildx", "build", "-q", "--cache-to", f"type=local,dest={cache},mode=max", str(context))
    image = havred.docker(*build, check=0).stdout.strip()
    whole = {path.name: path.read_bytes() for path in (cache / "blobs/sha256").iterdir()}
    for name, content in whole.items():
        ref = f"havre-sha256:{name}"
        begun = cache / "ingest" / hashlib.sha256(ref.encode()).hexdigest()
        begun.mkdir(parents=True)
        times = dict.fromkeys(("startedat", "updatedat"), "2026-01-01T00:00:00Z")
        for file, text in {"ref": ref, "total": str(len(content)), "data": "begun", **times}.items():
            (begun / file).write_text(text)
        (cache / "blobs/sha256" / name).unlink()
    assert havred.docker(*build, check=0).stdout.strip() == image
    assert {path.name: path.read_bytes() for path in (cache / "blobs/sha256").iterdir()} == whole
    assert not list((cache / "ingest").iterdir())
    _forget(havred, image)

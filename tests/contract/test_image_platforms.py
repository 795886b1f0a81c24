"""Names for several platforms, by every verb, and to and from podman, skopeo and dockerd."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from havre.oci import mediatypes
from havre.oci.digest import digest_of
from support.engines import Engine
from support.imagery import archive, config_of, layer_tar
from support.raw import ask
from support.registry import RealRegistry, own_registry, real_registry

pytestmark = pytest.mark.peer

SHARED = layer_tar("shared", content=bytes(range(256)) * 4096)
ARCHITECTURES = ("amd64", "arm64", "s390x")
OCI = '{"os":"linux","architecture":"arm64"}'


class Partners:
    """Registries' and archives' other users, in the engine's network namespace."""

    def __init__(self, engine: Engine, root: Path) -> None:
        self.inside = engine.inside
        self._store = ["--root", str(root / "c"), "--runroot", str(root / "r"), "--storage-driver", "vfs"]

    def run(self, *command: str, data: bytes | None = None) -> str:
        done = subprocess.run([*self.inside, *command], capture_output=True, input=data, timeout=60, check=False)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr.decode()}"
        return done.stdout.decode()

    def podman(self, *words: str, data: bytes | None = None) -> str:
        return self.run("podman", *self._store, *words, data=data)

    def index(self, name: str) -> tuple[str, list[str]]:
        """The digest of the index at a name in a registry, and its platforms."""
        raw = self.run("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}")
        digest = self.run("skopeo", "manifest-digest", "/dev/stdin", data=raw.encode()).strip()
        return digest, [entry["platform"]["architecture"] for entry in json.loads(raw).get("manifests", [])]


def image_of(architecture: str) -> bytes:
    """A docker-archive of one image for an architecture, without a name."""
    tars = [SHARED, layer_tar(architecture)]
    body = config_of(*tars).replace(b'"amd64"', f'"{architecture}"'.encode())
    item = {"Config": "c.json", "RepoTags": [f"only:{architecture}"], "Layers": ["0.tar", "1.tar"]}
    files = {"0.tar": tars[0], "1.tar": tars[1], "c.json": body, "manifest.json": json.dumps([item]).encode()}
    return archive(files)


@pytest.fixture
def partners(havred: Engine, tmp_path: Path) -> Iterator[Partners]:
    yield Partners(havred, tmp_path)
    names = havred.out("images", "--format", "{{.Repository}}:{{.Tag}}").split()
    if ours := [name for name in names if not name.startswith(("busybox:", "<none>"))]:
        havred.docker("rmi", "-f", *ours, check=0)
    havred.docker("image", "prune", "-f", check=0)


@pytest.fixture
def registry(havred: Engine, tmp_path: Path) -> Iterator[RealRegistry]:
    with real_registry(tmp_path / "registry", inside=havred.inside) as running:
        yield running


@pytest.fixture
def own(havred: Engine, tmp_path: Path) -> Iterator[RealRegistry]:
    """Our registry."""
    with own_registry(tmp_path / "own", inside=havred.inside) as running:
        yield running


def put_list(partners: Partners, registry: RealRegistry, *flags: str) -> str:
    """`many:1` in the registry: an index that podman made."""
    name = f"{registry.host}/many:1"
    partners.podman("manifest", "create", name)
    for architecture in ARCHITECTURES:
        partners.podman("load", data=image_of(architecture))
        partners.podman("manifest", "add", name, f"containers-storage:localhost/only:{architecture}")
    partners.podman("manifest", "push", "--all", "--tls-verify=false", *flags, name, f"docker://{name}")
    return name


def pull(engine: Engine, name: str, *architectures: str) -> None:
    platforms = ",".join(f"linux/{architecture}" for architecture in architectures)
    assert engine.havre("pull", "-q", "--platform", platforms, name, check=0).stdout == f"{name}\n"


def architecture_of(engine: Engine, name: str, *flags: str) -> str:
    return engine.havre("image", "inspect", "--format", "{{.Architecture}}", *flags, name, check=0).stdout.strip()


@pytest.mark.parametrize(("form", "where"), [("oci", "own"), ("v2s2", "registry")])
def test_pulled_from_podman_and_copied_whole(
    havred: Engine, partners: Partners, request: pytest.FixtureRequest, form: str, where: str
) -> None:
    registry: RealRegistry = request.getfixturevalue(where)
    name = put_list(partners, registry, "--format", form)
    index, platforms = partners.index(name)
    assert platforms == list(ARCHITECTURES)
    pull(havred, name, "arm64")
    assert architecture_of(havred, name) == "arm64"
    copy = f"{registry.host}/copy:1"
    havred.docker("tag", name, copy, check=0)
    said = havred.havre("push", copy, check=0).stdout
    assert f"{index} -> " in said
    assert partners.index(copy)[1] == []
    pull(havred, name, "amd64")
    missing_is_pulled = havred.docker("create", "--name", "big", "--platform", "linux/s390x", name, check=0)
    assert f"Status: Downloaded newer image for {name}" in missing_is_pulled.stderr
    havred.docker("rm", "big", check=0)
    assert architecture_of(havred, name) == "amd64"
    for architecture in ARCHITECTURES:
        assert architecture_of(havred, name, "--platform", f"linux/{architecture}") == architecture
    digests = havred.out("inspect", "--format", "{{.RepoDigests}}", name)
    assert f"{registry.host}/many@{index}" in digests
    said = havred.havre("push", copy, check=0).stdout
    assert f"1: digest: {index} size: " in said
    assert "->" not in said
    assert partners.index(copy) == (index, list(ARCHITECTURES))
    partners.podman("pull", "-q", "--tls-verify=false", "--arch", "s390x", copy)
    havred.havre("push", "--platform", "linux/s390x", copy, check=0)
    assert partners.index(copy)[1] == []
    missing = havred.havre("push", "--platform", "linux/386", copy, check=1).stderr
    assert "wanted linux/386, actual: linux/amd64, linux/arm64, linux/s390x" in missing


def test_every_verb_chooses_a_platform(havred: Engine, partners: Partners, registry: RealRegistry) -> None:
    name = put_list(partners, registry)
    pull(havred, name, "amd64", "arm64")
    [listed] = [line for line in havred.out("images", "--no-trunc").splitlines() if line.startswith(registry.host)]
    assert listed.split()[2] == havred.out("inspect", "--format", "{{.Id}}", name)
    arm = havred.havre("image", "inspect", "--format", "{{.Id}}", "--platform", "arm64", name, check=0).stdout.strip()
    assert arm[7:19] in havred.havre("history", "--platform", "linux/arm64", name, check=0).stdout
    havred.docker("create", "--name", "other", "--platform", "linux/arm64", name, check=0)
    assert havred.out("inspect", "--format", "{{.Image}}", "other") == arm
    for words in (("ps", "-aq", "--filter", f"ancestor={name}"), ("ps", "-aq", "--filter", f"ancestor={arm}")):
        assert len(havred.out(*words).split()) == 1
    missing = havred.docker("create", "--pull", "never", "--platform", "linux/s390x", name, check=1).stderr
    assert "was found but does not match the specified platform: wanted linux/s390x" in missing

    tree = havred.havre("image", "ls", "--tree", name, check=0).stdout.splitlines()
    assert tree[0].split() == ["IMAGE", "ID", "DISK", "USAGE", "CONTENT", "SIZE", "EXTRA"]
    assert [(line.split()[0], line.split()[-1] == "U") for line in tree[1:2]] == [(name, True)]
    rows = [line.split() for line in tree[2:]]
    assert [row[1] for row in rows] == [f"linux/{architecture}" for architecture in ARCHITECTURES]
    assert [row[3] == "0B" for row in rows] == [False, False, True]
    assert [row[-1] == "U" for row in rows] == [False, True, False]

    in_use = havred.docker("rmi", name, check=1).stderr
    assert f'unable to remove repository reference "{name}" (must force)' in in_use
    assert "Use --force to force delete" in havred.havre("rmi", "--platform", "linux/arm64", name, check=1).stderr
    havred.docker("rm", "other", check=0)
    havred.havre("rmi", "-f", "--platform", "linux/amd64", name, check=0)
    assert architecture_of(havred, name) == "arm64"
    gone = havred.out("rmi", name)
    assert f"Deleted: {arm}" in gone
    assert havred.out("images", "-q", name) == ""
    assert havred.havre("system", "check", check=0).stdout == "No defects found.\n"


def test_the_api_tells_manifests(havred: Engine, partners: Partners, registry: RealRegistry) -> None:
    name = put_list(partners, registry)
    pull(havred, name, "arm64")
    index, _ = partners.index(name)
    [row] = ask(havred.socket, "GET", f'/images/json?manifests=1&filters={{"reference":["{name}"]}}').json
    details = ask(havred.socket, "GET", f"/images/{name}/json?manifests=1").json
    assert row["Manifests"] == details["Manifests"]
    assert row["Descriptor"]["digest"] == details["Descriptor"]["digest"] == index
    told = {each["ImageData"]["Platform"]["architecture"]: each for each in row["Manifests"]}
    assert {name: each["Available"] for name, each in told.items()} == {"amd64": False, "arm64": True, "s390x": False}
    here = told["arm64"]
    assert here["Kind"] == "image"
    assert here["ID"] == here["Descriptor"]["digest"]
    assert here["ImageData"]["Size"]["Unpacked"] == len(SHARED) + len(layer_tar("arm64")) == row["Size"]
    assert here["Size"]["Total"] == here["Size"]["Content"] + row["Size"]
    plain = ask(havred.socket, "GET", f"/images/{name}/json?platform={OCI}").json
    assert plain["Architecture"] == "arm64"
    assert "Manifests" not in plain
    assert plain["Descriptor"]["digest"] == here["ID"]
    assert plain["Identity"] == {"Pull": [{"Repository": name.rpartition(":")[0]}]}
    assert "Identity" not in ask(havred.socket, "GET", f"/v1.52/images/{name}/json").json
    [identified] = ask(
        havred.socket, "GET", f'/images/json?identity=1&manifests=1&filters={{"reference":["{name}"]}}'
    ).json
    assert [each["ImageData"].get("Identity") for each in identified["Manifests"]] == [None, plain["Identity"], None]
    assert all("Identity" not in each["ImageData"] for each in row["Manifests"])
    refusals = {f"platform={OCI}&manifests=1": "conflicting options", 'platform={"os":"linux"}': "must be provided"}
    for query, words in {**refusals, "platform={": "failed to parse platform"}.items():
        answer = ask(havred.socket, "GET", f"/images/{name}/json?{query}")
        assert (answer.status, words in answer.message) == (400, True)


def test_archives_hold_every_platform(
    havred: Engine, request: pytest.FixtureRequest, partners: Partners, registry: RealRegistry, tmp_path: Path
) -> None:
    dockerd = request.getfixturevalue("_dockerd")
    name = put_list(partners, registry)
    pull(havred, name, *ARCHITECTURES)
    tar, layout = tmp_path / "saved.tar", tmp_path / "layout"
    havred.havre("save", "-o", str(tar), "--platform", "linux/amd64,linux/s390x", name, check=0)
    layout.mkdir()
    partners.run("tar", "-xf", str(tar), "-C", str(layout))
    partners.run("skopeo", "copy", "-q", "--all", f"oci:{layout}:1", f"dir:{tmp_path}/dir")
    copied = json.loads((tmp_path / "dir" / "manifest.json").read_text())
    assert [entry["platform"]["architecture"] for entry in copied["manifests"]] == ["amd64", "s390x"]
    dockerd.docker("load", "-i", str(tar), check=0)
    assert dockerd.out("inspect", "--format", "{{.Architecture}}", name) == "amd64"
    dockerd.docker("rmi", name, check=0)
    havred.docker("rmi", name, check=0)
    refused = havred.havre("load", "-i", str(tar), "--platform", "linux/arm64", check=1).stderr
    assert "the archive contains no image for linux/arm64" in refused
    assert havred.havre("load", "-i", str(tar), check=0).stdout == f"Loaded image: {name}\n"
    assert architecture_of(havred, name, "--platform", "linux/s390x") == "s390x"
    partners.run(
        "skopeo", "copy", "-q", "--all", "--src-tls-verify=false", f"docker://{name}", f"oci:{tmp_path}/o:a/b:2"
    )
    partners.run("tar", "-cf", str(tmp_path / "theirs.tar"), "-C", str(tmp_path / "o"), ".")
    assert havred.havre("load", "-i", str(tmp_path / "theirs.tar"), check=0).stdout == "Loaded image: a/b:2\n"
    for architecture in ARCHITECTURES:
        assert architecture_of(havred, "a/b:2", "--platform", f"linux/{architecture}") == architecture


def attested_layout(folder: Path) -> Path:
    """An OCI layout of an index with one image and what a builder attests of it, as most images of today are."""
    tars = [SHARED, layer_tar("amd64")]
    entries = []
    blobs: list[bytes] = []

    def point(media_type: str, body: bytes, **more: object) -> dict[str, object]:
        blobs.append(body)
        return {"mediaType": media_type, "digest": digest_of(body), "size": len(body), **more}

    statement = [point("application/vnd.in-toto+json", b'{"_type": "https://in-toto.io/Statement/v0.1"}')]
    layers = [point(mediatypes.OCI_LAYER, tar) for tar in tars]
    for config, of, platform in ((config_of(*tars), layers, "amd64"), (b"{}", statement, "unknown")):
        manifest = {"schemaVersion": 2, "mediaType": mediatypes.OCI_MANIFEST, "layers": of}
        manifest["config"] = point(mediatypes.OCI_CONFIG, config)
        system = "linux" if platform == "amd64" else platform
        more = {"platform": {"os": system, "architecture": platform}}
        entries.append(point(mediatypes.OCI_MANIFEST, json.dumps(manifest).encode(), **more))
    entries[1]["annotations"] = {
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": entries[0]["digest"],
    }
    index = {"schemaVersion": 2, "mediaType": mediatypes.OCI_INDEX, "manifests": entries}
    top = {"schemaVersion": 2, "manifests": [point(mediatypes.OCI_INDEX, json.dumps(index).encode())]}
    (folder / "blobs" / "sha256").mkdir(parents=True)
    for body in blobs:
        (folder / "blobs" / "sha256" / digest_of(body)[7:]).write_bytes(body)
    (folder / "index.json").write_text(json.dumps(top))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return folder


def test_an_attested_image_is_what_it_is_for_docker(engine: Engine, tmp_path: Path) -> None:
    layout = attested_layout(tmp_path / "layout")
    with real_registry(tmp_path / "registry", inside=engine.inside) as registry:
        name, copy = f"{registry.host}/attested:1", f"{registry.host}/copy:1"
        words = [
            "skopeo",
            "copy",
            "-q",
            "--all",
            "--preserve-digests",
            "--dest-tls-verify=false",
            f"oci:{layout}",
            f"docker://{name}",
        ]
        subprocess.run([*engine.inside, *words], check=True, timeout=60)
        index = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
        pulled = engine.out("pull", name)
        assert f"Digest: {index}" in pulled
        assert engine.out("inspect", "--format", "{{.RepoDigests}}", name) == f"[{name[:-2]}@{index}]"
        engine.docker("tag", name, copy, check=0)
        manifest = engine.out("push", copy).rpartition("digest: ")[2].partition(" ")[0]
        digests = engine.out("inspect", "--format", "{{.RepoDigests}}", copy)
        assert digests == f"[{name[:-2]}@{index} {copy[:-2]}@{manifest}]"
        rows = engine.out("images", "--format", "{{.Repository}}:{{.Tag}}").split()
        assert sorted(row for row in rows if registry.host in row) == sorted([name, copy])
        removed = engine.out("rmi", copy, name).splitlines()
        untagged = [line for line in removed if line.startswith("Untagged")]
        assert untagged == [
            f"Untagged: {one}" for one in (copy, f"{copy[:-2]}@{manifest}", name, f"{name[:-2]}@{index}")
        ]
        assert len(removed) == len(untagged) + 1 + 2

"""Images by docker's command line, on havre and on dockerd: what is printed, listed, refused and left."""

from __future__ import annotations

import io
import json
import re
import subprocess
import tarfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from support.building import served
from support.engines import Engine
from support.imagery import archive, config_of, layer_tar
from support.raw import ask
from support.registry import PASSWORD, USER, RealRegistry, real_registry

pytestmark = pytest.mark.peer

BASE, TOP = layer_tar("base"), layer_tar("top")
CONFIG = config_of(BASE, TOP)


def image_archive(*names: str) -> bytes:
    item = {"Config": "c.json", "RepoTags": list(names), "Layers": ["0.tar", "1.tar"]}
    return archive({"0.tar": BASE, "1.tar": TOP, "c.json": CONFIG, "manifest.json": json.dumps([item]).encode()})


@pytest.fixture
def registry(engine: Engine, tmp_path: Path) -> Iterator[RealRegistry]:
    """A registry that only the engine can reach."""
    with real_registry(tmp_path / "registry", inside=engine.inside) as running:
        yield running


@pytest.fixture
def image(engine: Engine) -> Iterator[str]:
    """An image of two layers, named x:1."""
    engine.docker("load", stdin=image_archive("x:1"), check=0)
    yield "x:1"
    ids = set(engine.out("images", "-q", "--no-trunc").split()) - set(_kept(engine))
    if ids:
        engine.docker("rmi", "-f", *ids, check=0)


def _kept(engine: Engine) -> list[str]:
    return engine.out("images", "-q", "--no-trunc", "busybox").split()


def short(engine: Engine, name: str) -> str:
    return engine.out("inspect", "--format", "{{.Id}}", name)[7:19]


def test_load_and_list(engine: Engine, image: str) -> None:
    assert engine.out("load", stdin=image_archive("x:1", "y:2")) == "Loaded image: x:1\nLoaded image: y:2"
    rows = engine.out("images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}} {{.CreatedAt}}").splitlines()
    assert {f"x:1 {short(engine, 'x:1')} 2026-01-02 03:04:05 +0000 UTC"} <= set(rows)
    for filters, found in [
        (["reference=x"], {"x:1"}),
        (["reference=*:2"], {"y:2"}),
        (["dangling=true"], set()),
        (["before=busybox"], set()),
        (["label=none"], set()),
    ]:
        flags = [part for text in filters for part in ("--filter", text)]
        listed = engine.out("images", *flags, "--format", "{{.Repository}}:{{.Tag}}").split()
        assert {name for name in listed if name != "busybox:latest"} == found


def test_inspect_and_history(engine: Engine, image: str) -> None:
    (details,) = json.loads(engine.out("image", "inspect", image))
    assert details["RepoTags"] == ["x:1"]
    assert details["RepoDigests"] == []
    assert details["RootFS"]["Type"] == "layers"
    assert len(details["RootFS"]["Layers"]) == 2
    assert (details["Architecture"], details["Os"], details["Config"]["Cmd"]) == ("amd64", "linux", ["sh"])
    assert details["Created"] == "2026-01-02T03:04:05Z"
    history = engine.out("history", "--no-trunc", "--format", "{{.ID}} {{.CreatedBy}}", image).splitlines()
    assert history == [f"{details['Id']} step 1", "<missing> step 0"]


def test_tag_and_untag(engine: Engine, image: str) -> None:
    engine.docker("tag", "x:1", "y:2", check=0)
    assert engine.out("rmi", "x:1") == "Untagged: x:1"
    lines = engine.out("rmi", short(engine, "y:2")).splitlines()
    assert lines[0] == "Untagged: y:2"
    assert [line.partition(":")[0] for line in lines[1:]] == ["Deleted"] * 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rmi", "nope"], "Error response from daemon: No such image: nope:latest"),
        (["history", "nope:1"], "Error response from daemon: No such image: nope:1"),
        (["tag", "nope", "y"], "Error response from daemon: No such image: nope:latest"),
        (["images", "--filter", "bogus=1"], "Error response from daemon: invalid filter 'bogus'"),
        (["images", "--filter", "dangling=x"], "Error response from daemon: invalid filter 'dangling=[x]'"),
        (["images", "--filter", "before=nope"], "Error response from daemon: No such image: nope:latest"),
        (["image", "inspect", "nope"], "Error response from daemon: No such image: nope:latest"),
        (["push", "nope:1"], "An image does not exist locally with the tag: nope"),
        (["save", "nope"], "Error response from daemon: No such image: nope"),
    ],
)
def test_refused(engine: Engine, arguments: list[str], words: str) -> None:
    assert words in engine.docker(*arguments, check=1).stderr


def test_remove_conflicts(engine: Engine, image: str) -> None:
    engine.docker("tag", "x:1", "y:2", check=0)
    id = short(engine, "x:1")
    words = f"conflict: unable to delete {id} (must be forced) - image is referenced in multiple repositories"
    assert words in engine.docker("rmi", id, check=1).stderr
    engine.docker("rmi", "y:2", check=0)
    container = engine.out("create", "x:1", "sh")
    try:
        words = f'conflict: unable to remove repository reference "x:1" (must force) - container {container[:12]}'
        assert f"{words} is using its referenced image {id}" in engine.docker("rmi", "x:1", check=1).stderr
        words = f"unable to delete {id} (must be forced) - image is being used by stopped container {container[:12]}"
        assert words in engine.docker("rmi", id, check=1).stderr
    finally:
        engine.docker("rm", container, check=0)


def test_import_and_prune(engine: Engine) -> None:
    changes = ["-c", 'CMD ["x", "y"]', "-c", "ENV A=b", "-m", "from a tar"]
    id = engine.out("import", *changes, "-", "imported:1", stdin=BASE)
    (details,) = json.loads(engine.out("image", "inspect", "imported:1"))
    assert (details["Id"], details["Comment"]) == (id, "from a tar")
    assert (details["Config"]["Cmd"], details["Config"]["Env"]) == (["x", "y"], ["A=b"])
    engine.docker("import", "-", "imported:1", stdin=TOP, check=0)
    assert engine.out("images", "-q", "--no-trunc", "--filter", "dangling=true") == id
    pruned = engine.out("image", "prune", "-f")
    assert f"deleted: {id}" in pruned
    assert "Total reclaimed space:" in pruned
    engine.docker("rmi", "imported:1", check=0)
    words = "FROM is not a valid change command"
    assert words in engine.docker("import", "-c", "FROM x", "-", "bad", stdin=BASE, check=1).stderr


def test_import_from_a_url(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "root.tar").write_bytes(BASE)
    (tmp_path / "none.tar").write_bytes(b"no tar")
    with served(engine, tmp_path) as address:
        assert engine.docker("import", f"{address}/root.tar", "fetched:1", check=0).stdout.startswith(
            "Downloading from"
        )
        assert engine.out("inspect", "-f", "{{.Comment}}", "fetched:1") == f"Imported from {address}/root.tar"
        bare = address.removeprefix("http://")
        told = ask(engine.socket, "POST", f"/images/create?fromSrc={bare}/root.tar&repo=fetched&tag=2").body
        assert f'"progressDetail":{{"current":{len(BASE)},"total":{len(BASE)}}}'.encode() in told
        assert engine.out("inspect", "-f", "{{.RootFS}}", "fetched:1") == engine.out(
            "inspect", "-f", "{{.RootFS}}", "fetched:2"
        )
        assert f"{address}/none" in engine.docker("import", f"{address}/none", "fetched:3", check=1).stderr
        assert ask(engine.socket, "POST", f"/images/create?fromSrc={address}/none").status == 404
        assert engine.docker("import", f"{address}/none.tar", "fetched:3", check=1).stderr
    assert f"{address}/root.tar" in engine.docker("import", f"{address}/root.tar", "fetched:3", check=1).stderr
    assert "file:" in ask(engine.socket, "POST", "/images/create?fromSrc=file:///etc/passwd").body.decode()
    names = engine.out("images", "--format", "{{.Tag}}", "fetched").split()
    assert sorted(names) == ["1", "2"]
    engine.docker("rmi", "fetched:1", "fetched:2", check=0)


def test_images_of_one_second_are_told_apart(engine: Engine) -> None:
    engine.out("create", "--name", "base", "busybox")
    ids = [engine.out("commit", "base", f"moments:{number}") for number in range(4)]
    shown = engine.out("images", "-q", "--no-trunc", "-f", f"since={ids[0]}", "-f", f"before={ids[3]}").split()
    assert sorted(shown) == sorted(ids[1:3])


@pytest.mark.usefixtures("image")
def test_containers_of_images_for_other_processors(engine: Engine) -> None:
    """Made with a warning, unless the platform was asked for; older variants and 32 bits run here."""

    def warnings(architecture: str, variant: str = "", asked: str = "") -> list[str]:
        config = json.dumps(json.loads(CONFIG) | {"architecture": architecture, "variant": variant}).encode()
        item = {"Config": "c.json", "RepoTags": ["x:1"], "Layers": ["0.tar", "1.tar"]}
        files = {"0.tar": BASE, "1.tar": TOP, "c.json": config, "manifest.json": json.dumps([item]).encode()}
        engine.docker("load", stdin=archive(files), check=0)
        made = ask(engine.socket, "POST", f"/containers/create?platform={asked}", {"Image": "x:1"})
        assert made.status == 201
        return list(made.json["Warnings"])

    loader = Path("/lib64/ld-linux-x86-64.so.2")
    listed = subprocess.run([loader, "--help"], capture_output=True, text=True, check=True).stdout
    level = max(map(int, re.findall(r"x86-64-v(\d) \(supported", listed)), default=1)

    def warning(platform: str) -> list[str]:
        return [
            f"The requested image's platform ({platform}) does not match the detected host platform "
            f"(linux/amd64/v{level}) and no specific platform was requested"
        ]

    assert warnings("arm64") == warning("linux/arm64")
    assert warnings("arm", "v7") == warning("linux/arm/v7")
    assert warnings("amd64", f"v{level + 1}") == warning(f"linux/amd64/v{level + 1}")
    assert warnings("arm64", asked="linux/arm64") == []
    assert warnings("amd64") == warnings("amd64", "v1") == warnings("amd64", f"v{level}") == warnings("386") == []
    assert engine.docker("create", "x:1", check=0).stderr == ""


@pytest.mark.parametrize("platform", ["macos", "macos/arm64", "windows/amd64"])
def test_import_for_another_system(engine: Engine, platform: str) -> None:
    refused = engine.docker("import", "--platform", platform, "-", "elsewhere:1", stdin=BASE, check=1)
    assert "operating system is not supported" in refused.stderr
    assert not engine.out("images", "-q", "elsewhere")


def test_save_and_load_again(engine: Engine, image: str, tmp_path: Path) -> None:
    saved = tmp_path / "saved.tar"
    engine.docker("save", "-o", str(saved), "x:1", check=0)
    id = short(engine, "x:1")
    engine.docker("rmi", "x:1", check=0)
    assert engine.out("load", "-i", str(saved)) == "Loaded image: x:1"
    assert short(engine, "x:1") == id
    tagged = ("inspect", "--format", "{{json .Metadata.LastTagTime}}", "x:1")
    assert json.loads(engine.out(*tagged)) == "0001-01-01T00:00:00Z"  # nobody has given the name here
    engine.docker("tag", "x:1", "x:1", check=0)
    before = engine.out(*tagged)
    engine.docker("load", "-i", str(saved), check=0)
    assert engine.out(*tagged) == before != "0001-01-01T00:00:00Z"


def test_what_is_saved_is_as_old_as_its_image(engine: Engine, image: str, tmp_path: Path) -> None:
    engine.docker("save", "-o", str(tmp_path / "x.tar"), "x:1", check=0)
    created = datetime.fromisoformat(engine.out("inspect", "--format", "{{.Created}}", "x:1"))
    with tarfile.open(tmp_path / "x.tar") as tar:
        entry = json.load(tar.extractfile("manifest.json") or io.BytesIO())[0]
        assert {tar.getmember(path).mtime for path in (entry["Config"], *entry["Layers"])} == {int(created.timestamp())}
        assert tar.getmember("manifest.json").mtime == 0


def test_push_and_pull(engine: Engine, image: str, registry: RealRegistry) -> None:
    name = f"{registry.host}/a/b"
    engine.docker("tag", "x:1", f"{name}:1", check=0)
    pushed = engine.out("push", f"{name}:1")
    assert pushed.startswith(f"The push refers to repository [{name}]")
    match = re.search(r"^1: digest: (sha256:[0-9a-f]{64}) size: \d+$", pushed, re.MULTILINE)
    assert match is not None, pushed
    digest = match.group(1)
    assert engine.out("push", f"{name}:1").count("Layer already exists") == 2
    engine.docker("tag", "x:1", f"{registry.host}/a/c:1", check=0)
    assert engine.out("push", f"{registry.host}/a/c:1").count("Mounted from a/b") == 2

    removed = engine.out("rmi", f"{name}:1").splitlines()
    assert removed == [f"Untagged: {name}:1", f"Untagged: {name}@{digest}"]
    engine.docker("rmi", "x:1", f"{registry.host}/a/c:1", check=0)
    lines = engine.out("pull", f"{name}:1").splitlines()
    assert lines[0] == "1: Pulling from a/b"
    assert sum("Pull complete" in line for line in lines) == 2
    tail = [f"Digest: {digest}", f"Status: Downloaded newer image for {name}:1", f"{name}:1"]
    assert lines[-3:] == tail
    assert engine.out("pull", f"{name}:1").splitlines()[-2] == f"Status: Image is up to date for {name}:1"
    assert engine.out("pull", "-q", f"{name}@{digest}") == f"{name}@{digest}"
    assert engine.out("inspect", "--format", "{{json .RepoDigests}}", f"{name}:1") == json.dumps([f"{name}@{digest}"])

    words = f"Error response from daemon: manifest for {name}:nope not found: manifest unknown: manifest unknown"
    assert words in engine.docker("pull", f"{name}:nope", check=1).stderr
    words = "was found but does not match the specified platform: wanted linux/arm64, actual: linux/amd64"
    assert words in engine.docker("pull", "--platform", "linux/arm64", f"{name}:1", check=1).stderr

    # Without a tag it is listed all the same, as docker lists it.
    engine.docker("rmi", f"{name}:1", check=0)
    engine.docker("pull", "-q", f"{name}@{digest}", check=0)
    assert engine.havre("images", "--format", "json", name, check=0).stdout.strip() == engine.out(
        "images", "--format", "json", name
    )


def test_run_pulls_what_is_missing(engine: Engine, registry: RealRegistry) -> None:
    name = f"{registry.host}/busybox:1"
    engine.docker("tag", "busybox", name, check=0)
    engine.docker("push", "-q", name, check=0)
    engine.docker("rmi", name, check=0)
    done = engine.docker("run", "--rm", "--network", "none", name, "echo", "hi", check=0)
    assert done.stdout == "hi\n"
    assert f"Unable to find image '{name}' locally" in done.stderr
    engine.docker("rmi", name, check=0)
    for run in (engine.docker, engine.havre):
        assert run("run", "-q", "--rm", "--network", "none", name, "echo", "hi", check=0).stderr == ""
        engine.docker("rmi", name, check=0)
    assert engine.docker("run", "--rm", f"{registry.host}/nope:1", check=125).stderr.count("manifest unknown")


def test_login(engine: Engine, tmp_path: Path) -> None:
    with real_registry(tmp_path / "closed", htpasswd=True, inside=engine.inside) as registry:
        name = f"{registry.host}/busybox:1"
        engine.docker("tag", "busybox", name, check=0)
        assert "no basic auth credentials" in engine.docker("push", name, check=1).stderr
        done = engine.docker("login", "-u", USER, "--password-stdin", registry.host, stdin="wrong", check=1)
        assert "401 Unauthorized" in done.stderr
        done = engine.docker("login", "-u", USER, "--password-stdin", registry.host, stdin=PASSWORD, check=0)
        assert "Login Succeeded" in done.stdout
        engine.docker("push", "-q", name, check=0)
        engine.docker("rmi", name, check=0)
        engine.docker("pull", "-q", name, check=0)
        engine.docker("logout", registry.host, check=0)
        refused = ask(engine.socket, "POST", f"/images/create?fromImage={registry.host}/busybox&tag=1")
        assert refused.status == 500  # at a 401 docker's command line asks for a password, where nobody can type one
        assert "no basic auth credentials" in engine.docker("pull", name, check=1).stderr
        engine.docker("rmi", name, check=0)


def test_a_name_that_was_given_away_is_not_shown(engine: Engine) -> None:
    engine.out("tag", "busybox", "mine:1")
    engine.out("create", "--name", "old", "mine:1")
    assert engine.out("ps", "-a", "--format", "{{.Image}}") == "mine:1"
    engine.out("import", "-", "mine:1", stdin=BASE)
    id = engine.out("inspect", "--format", "{{.Image}}", "old")
    assert engine.out("ps", "-a", "--no-trunc", "--format", "{{.Image}}") == id

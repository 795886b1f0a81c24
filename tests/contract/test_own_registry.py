"""Our registry, Debian's and the engine: images go between them in all directions and keep their digests."""

from __future__ import annotations

import json
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.engines import HAVRE, Engine
from support.imagery import archive, config_of, layer_tar
from support.raw import ask
from support.registry import HTPASSWD, PASSWORD, USER, RealRegistry, own_registry, real_registry
from support.waiting import until

pytestmark = pytest.mark.peer

TARS = (layer_tar("base", content=bytes(range(256)) * 8192), layer_tar("top"))
ITEM = {"Config": "c.json", "RepoTags": ["moved:1"], "Layers": ["0.tar", "1.tar"]}
ARCHIVE = archive(
    {"0.tar": TARS[0], "1.tar": TARS[1], "c.json": config_of(*TARS), "manifest.json": json.dumps([ITEM]).encode()}
)


@pytest.fixture
def own(engine: Engine, tmp_path: Path) -> Iterator[RealRegistry]:
    with own_registry(tmp_path / "own", inside=engine.inside) as running:
        yield running


@pytest.fixture
def theirs(engine: Engine, tmp_path: Path) -> Iterator[RealRegistry]:
    with real_registry(tmp_path / "theirs", inside=engine.inside) as running:
        yield running


def test_images_go_in_all_directions(engine: Engine, own: RealRegistry, theirs: RealRegistry) -> None:
    def copy(source: str, target: str) -> None:
        flags = ["--src-tls-verify=false", "--dest-tls-verify=false", "--all"]
        command = [*engine.inside, "skopeo", "copy", "-q", *flags, f"docker://{source}", f"docker://{target}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr

    def digest(name: str) -> str:
        command = [
            *engine.inside,
            "skopeo",
            "inspect",
            "--tls-verify=false",
            "--format",
            "{{.Digest}}",
            f"docker://{name}",
        ]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.strip()

    engine.docker("load", stdin=ARCHIVE, check=0)
    id = engine.out("inspect", "--format", "{{.Id}}", "moved:1")
    first = f"{own.host}/deep/er/moved:1"
    engine.docker("tag", "moved:1", first, check=0)
    assert f"digest: {digest_pushed(engine, first)}" in engine.out("push", first)
    copy(first, f"{theirs.host}/moved:1")
    copy(f"{theirs.host}/moved:1", f"{own.host}/back:1")
    assert digest(first) == digest(f"{theirs.host}/moved:1") == digest(f"{own.host}/back:1")
    engine.docker("tag", "moved:1", f"{own.host}/again:1", check=0)
    assert engine.out("push", f"{own.host}/again:1").count("Mounted from") == 2
    engine.docker("rmi", "-f", id, check=0)
    engine.docker("pull", "-q", f"{own.host}/back:1", check=0)
    assert engine.out("inspect", "--format", "{{.Id}}", f"{own.host}/back:1") == id
    engine.docker("rmi", "-f", id, check=0)


def digest_pushed(engine: Engine, name: str) -> str:
    """The digest that a push of `name` tells."""
    last = engine.out("push", name).splitlines()[-1]
    return last.partition("digest: ")[2].partition(" ")[0]


def test_it_is_served_by_the_command_line(havred: Engine, tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        command = [
            *havred.inside,
            str(HAVRE),
            "registry",
            "serve",
            "--addr",
            "127.0.0.1:0",
            "--root",
            str(tmp_path / "root"),
        ]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        until(lambda: b"serving" in (tmp_path / "log").read_bytes(), "our registry to listen")
        swept = havred.havre("registry", "garbage-collect", "--root", str(tmp_path / "root"), check=0)
        assert swept.stdout == "Total reclaimed space: 0 bytes\n"
        assert "no registry" in havred.havre("registry", "garbage-collect", "--root", str(tmp_path), check=1).stderr
        for flags, told in ((("--auth", "digest"), "invalid --auth"), (("--auth=token",), "give --htpasswd")):
            assert told in havred.havre("registry", "serve", *flags, check=1).stderr
    finally:
        process.terminate()
        assert process.wait(10) == 0, (tmp_path / "log").read_text()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.crt, which signs itself, with its key."""
    folder = tmp_path_factory.mktemp("tls")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(folder / "key.pem")]
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", "req", "-x509", *key, "-out", str(folder / "ca.crt"), "-days", "2", *subject]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("kind", ["basic", "token"])
def test_accounts(engine: Engine, tmp_path: Path, kind: str) -> None:
    accounts = tmp_path / "accounts"
    accounts.write_text(HTPASSWD)
    flags = ["--htpasswd", str(accounts), "--auth", kind]
    with own_registry(tmp_path / "closed", inside=engine.inside, flags=flags) as own:
        name = f"{own.host}/moved:1"
        engine.docker("load", stdin=ARCHIVE, check=0)
        engine.docker("tag", "moved:1", name, check=0)
        complaint = engine.docker("push", name, check=1).stderr
        assert "auth" in complaint or "denied" in complaint
        login = ("login", "-u", USER, "--password-stdin", own.host)
        wrong = engine.docker(*login, stdin="wrong", check=1).stderr
        assert ("401 Unauthorized" if kind == "basic" else "unauthorized") in wrong
        given = b64encode(json.dumps({"username": USER, "password": "wrong"}).encode()).decode()
        pull = ask(engine.socket, "POST", f"/images/create?fromImage={name}", headers={"X-Registry-Auth": given})
        assert pull.status == 500
        assert "unauthorized" in pull.message
        assert "Login Succeeded" in engine.docker(*login, stdin=PASSWORD, check=0).stdout
        engine.docker("push", "-q", name, check=0)
        engine.docker("tag", name, f"{own.host}/other:1", check=0)
        assert engine.out("push", f"{own.host}/other:1").count("Mounted from") == 2
        engine.docker("rmi", name, check=0)
        engine.docker("pull", "-q", name, check=0)
        inspect = [*engine.inside, "skopeo", "inspect", "--tls-verify=false", "--creds", f"{USER}:{PASSWORD}"]
        assert subprocess.run([*inspect, f"docker://{name}"], timeout=60, check=False).returncode == 0
        engine.docker("logout", own.host, check=0)
        engine.docker("rmi", "-f", name, f"{own.host}/other:1", "moved:1", check=0)


def test_tls_with_accounts(engine: Engine, tmp_path: Path, certificates: Path) -> None:
    (tmp_path / "accounts").write_text(HTPASSWD)
    flags = ["--tlscert", str(certificates / "ca.crt"), "--tlskey", str(certificates / "key.pem")]
    flags += ["--htpasswd", str(tmp_path / "accounts"), "--auth", "token"]
    with own_registry(tmp_path / "tls", inside=engine.inside, flags=flags) as own:
        name = f"{own.host}/moved:1"
        engine.docker("load", stdin=ARCHIVE, check=0)
        engine.docker("tag", "moved:1", name, check=0)
        engine.docker("login", "-u", USER, "--password-stdin", own.host, stdin=PASSWORD, check=0)
        engine.docker("push", "-q", name, check=0)
        engine.docker("rmi", name, check=0)
        engine.docker("pull", "-q", name, check=0)
        engine.docker("logout", own.host, check=0)
        engine.docker("rmi", "-f", name, "moved:1", check=0)
        inspect = [*engine.inside, "skopeo", "inspect", "--creds", f"{USER}:{PASSWORD}", f"docker://{name}"]
        trusting = subprocess.run([*inspect, "--cert-dir", str(certificates)], timeout=60, check=False)
        assert trusting.returncode == 0
        wary = subprocess.run(inspect, capture_output=True, text=True, timeout=60, check=False)
        assert "certificate" in wary.stderr

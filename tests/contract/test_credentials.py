"""Where credentials are kept: the config file or a credential helper, by our command line as by docker's."""

from __future__ import annotations

import base64
import json
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.engines import HAVRE, Engine
from support.raw import ask
from support.registry import PASSWORD, USER, RealRegistry, real_registry
from support.tars import END, member

pytestmark = pytest.mark.peer

# Keeps one secret for each server in a file named after it, and a log of what it was asked.
HELPER = """#!/bin/sh
cd "$(dirname "$0")"
input=$(cat); echo "$1" >> log
case "$1" in
store) echo "$input" > secret ;;
get) [ -f secret ] && cat secret || { echo "credentials not found in native keychain"; exit 1; } ;;
erase) rm -f secret ;;
list) echo '{}' ;;
esac
"""


@pytest.fixture
def closed(havred: Engine, tmp_path: Path) -> Iterator[RealRegistry]:
    with real_registry(tmp_path / "closed", htpasswd=True, inside=havred.inside) as running:
        yield running


def run(havred: Engine, folder: Path, *words: str, stdin: str = "", check: int = 0) -> str:
    env = {**havred.env, "DOCKER_CONFIG": str(folder), "PATH": f"{folder}:{os.environ['PATH']}"}
    done = subprocess.run(words, env=env, input=stdin, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == check, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "credentials",
    [
        {"username": USER, "password": PASSWORD, "email": None, "identitytoken": None},
        {"Username": USER, "PASSWORD": PASSWORD},
    ],
    ids=["null", "case"],
)
def test_credentials_of_a_request_are_read_as_go_reads_them(
    engine: Engine, tmp_path: Path, credentials: dict[str, str | None]
) -> None:
    with real_registry(tmp_path / "closed", htpasswd=True, inside=engine.inside) as registry:
        name = f"{registry.host}/private"
        engine.out("tag", "busybox", f"{name}:1")
        encoded = base64.urlsafe_b64encode(json.dumps(credentials | {"serveraddress": registry.host}).encode()).decode()
        headers = {"X-Registry-Auth": encoded}
        pushed = ask(engine.socket, "POST", f"/images/{name}/push?tag=1", headers=headers)
        assert (pushed.status, b"errorDetail" in pushed.body) == (200, False), pushed.body
        engine.out("rmi", f"{name}:1")
        target = f"/images/create?fromImage={name}&tag=1"
        pulled = ask(engine.socket, "POST", target, headers=headers)
        assert (pulled.status, b"errorDetail" in pulled.body) == (200, False), pulled.body
        engine.out("rmi", f"{name}:1")
        config = base64.urlsafe_b64encode(json.dumps({registry.host: credentials}).encode()).decode()
        built = ask(
            engine.socket,
            *("POST", "/build", member(b"Dockerfile", f"FROM {name}:1\n".encode()) + END),
            headers={"X-Registry-Config": config, "Content-Type": "application/x-tar"},
        )
        assert b"Successfully built" in built.body, built.body
        engine.out("rmi", f"{name}:1")


@pytest.mark.parametrize("client", ["docker", str(HAVRE)], ids=["docker", "havre"])
@pytest.mark.parametrize("kept", [{}, {"credsStore": "fake"}, {"credHelpers": "fake"}], ids=["file", "store", "helper"])
def test_credentials_are_kept_used_and_forgotten(
    havred: Engine, closed: RealRegistry, tmp_path: Path, client: str, kept: dict[str, str]
) -> None:
    folder, name = tmp_path / "config", f"{closed.host}/private:1"
    folder.mkdir()
    config = {key: {closed.host: value} if key == "credHelpers" else value for key, value in kept.items()}
    (folder / "config.json").write_text(json.dumps({**config, "unknown": {"kept": True}}))
    (folder / "docker-credential-fake").write_text(HELPER)
    (folder / "docker-credential-fake").chmod(0o755)

    run(havred, folder, client, "login", "-u", USER, "--password-stdin", closed.host, stdin=PASSWORD)
    file = folder / "config.json"
    stored = json.loads(file.read_text())
    if client != "docker":  # which leaves a file open to all as it is, and forgets what it does not know
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stored["unknown"] == {"kept": True}
    if kept:
        assert not stored.get("auths", {}).get(closed.host)
        secret = json.loads((folder / "secret").read_text())
        assert secret == {"ServerURL": closed.host, "Username": USER, "Secret": PASSWORD}
    else:
        assert list(stored["auths"]) == [closed.host]
    havred.docker("tag", "busybox", name, check=0)
    run(havred, folder, client, "push", "-q", name)
    havred.docker("rmi", name, check=0)
    run(havred, folder, client, "pull", "-q", name)
    run(havred, folder, client, "logout", closed.host)
    assert not (folder / "secret").exists()
    assert not json.loads(file.read_text()).get("auths")
    run(havred, folder, client, "pull", "-q", name, check=1)
    havred.docker("rmi", name, check=0)

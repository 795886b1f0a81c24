"""`diff`, `commit` and `export`: what a container changed, made visible, made an image, written out."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator

import pytest

from support.engines import Engine
from support.raw import ask

SCRIPT = """
echo new > /new; rm /etc/passwd; mkdir -p /made/below; chmod 700 /tmp; echo v > /v/hidden; touch /ready; sleep 1000
"""


@pytest.fixture
def changed(engine: Engine) -> Iterator[str]:
    """A running container that has changed files."""
    engine.out("run", "-d", "--name", "changed", "-v", "/v", "-e", "A=1", "busybox", "sh", "-c", SCRIPT)
    engine.out("exec", "changed", "sh", "-c", "until [ -e /ready ]; do sleep 0.01; done")
    yield "changed"
    engine.docker("rm", "-f", "-v", "changed")


def test_diff(engine: Engine, changed: str) -> None:
    expected = {"A /new", "C /etc", "D /etc/passwd", "A /made", "A /made/below", "C /tmp", "A /v", "A /ready"}
    assert set(engine.out("diff", changed).splitlines()) == expected
    kinds = {each["Path"]: each["Kind"] for each in ask(engine.socket, "GET", f"/containers/{changed}/changes").json}
    assert (kinds["/etc"], kinds["/new"], kinds["/etc/passwd"]) == (0, 1, 2)
    assert ask(engine.socket, "GET", "/containers/none/changes").status == 404


def test_export(havred: Engine) -> None:
    # Not on dockerd: it leaves the root file system mounted, even after the container is removed.
    havred.out("run", "-d", "--name", "changed", "-v", "/v", "busybox", "sh", "-c", SCRIPT)
    havred.out("exec", "changed", "sh", "-c", "until [ -e /ready ]; do sleep 0.01; done")
    reply = ask(havred.socket, "GET", "/containers/changed/export")
    havred.docker("rm", "-f", "-v", "changed", check=0)
    with tarfile.open(fileobj=io.BytesIO(reply.body)) as tar:
        names = tar.getnames()
        content = tar.extractfile("new")
        assert content is not None
        assert content.read() == b"new\n"
    assert {"bin/busybox", "made/below", "v"} <= set(names)
    assert not {"v/hidden", "etc/passwd", "proc/self", "sys/kernel"} & set(names)


def test_commit_keeps_layers_and_configuration(engine: Engine, changed: str) -> None:
    options = ("-a", "me", "-m", "a note", "-c", 'CMD ["cat", "/new"]', "-c", "ENV B=2", "-c", "LABEL l=1")
    identifier = engine.out("commit", *options, changed, "made:1")
    shown = json.loads(engine.out("inspect", "made:1"))[0]
    assert (shown["Id"], shown["Author"], shown["Comment"]) == (identifier, "me", "a note")
    assert len(shown["RootFS"]["Layers"]) == 2
    assert {"A=1", "B=2"} < set(shown["Config"]["Env"])
    assert (shown["Config"]["Cmd"], shown["Config"]["Labels"]) == (["cat", "/new"], {"l": "1"})
    assert engine.out("run", "--rm", "made:1") == "new"
    assert engine.docker("run", "--rm", "made:1", "ls", "/etc/passwd").returncode == 1
    assert "a note" in engine.out("history", "made:1")
    assert engine.out("inspect", "--format", "{{.State.Status}}", changed) == "running"
    engine.docker("rmi", "made:1", check=0)


def test_changes_know_the_environment(engine: Engine) -> None:
    engine.out("create", "--name", "idle", "-e", "A=1", "busybox", "true")
    changes = ("ENV PATH=/more:$PATH B=${NONE:-2}", "LABEL l='$A' m=\"$A$B\"", "WORKDIR /w/$A", "CMD echo $A")
    identifier = engine.out("commit", *(part for change in changes for part in ("-c", change)), "idle")
    config = json.loads(engine.out("inspect", identifier))[0]["Config"]
    path = "PATH=/more:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    assert (sorted(config["Env"]), config["Labels"]) == (["A=1", "B=2", path], {"l": "$A", "m": "12"})
    assert (config["WorkingDir"], config["Cmd"]) == ("/w/1", ["/bin/sh", "-c", "echo $A"])
    engine.docker("rmi", identifier, check=0)
    engine.docker("rm", "idle", check=0)


def test_changes_are_read_as_a_dockerfile(engine: Engine) -> None:
    engine.out("create", "--name", "idle", "busybox", "true")
    changes = ("ENTRYPOINT run \\\n  --all", "EXPOSE 80/TCP 127.0.0.1:81:82", "HEALTHCHECK --interval=1ms CMD true")
    identifier = engine.out("commit", *(part for change in changes for part in ("-c", change)), "idle")
    config = json.loads(engine.out("inspect", identifier))[0]["Config"]
    assert (config["Entrypoint"], config["Cmd"]) == (["/bin/sh", "-c", "run   --all"], None)
    assert sorted(config["ExposedPorts"]) == ["80/tcp", "82/tcp"]
    assert config["Healthcheck"] == {"Test": ["CMD-SHELL", "true"], "Interval": 10**6}
    engine.docker("rmi", identifier, check=0)
    for change in ("HEALTHCHECK --interval=0.5ms CMD true", "EXPOSE 70000", "STOPSIGNAL SIGNO", "ENV", 'SHELL ["x"]'):
        engine.docker("commit", "-c", change, "idle", check=1)
    engine.docker("rm", "idle", check=0)


def test_commit_of_a_container_that_changed_nothing_adds_no_layer(engine: Engine) -> None:
    engine.out("create", "--name", "idle", "busybox", "true")
    identifier = engine.out("commit", "idle")
    assert engine.out("inspect", "--format", "{{len .RootFS.Layers}}", identifier) == "1"
    engine.docker("rmi", identifier, check=0)
    engine.docker("rm", "idle", check=0)


def test_refusals(engine: Engine, changed: str) -> None:
    assert "No such container: none" in engine.docker("commit", "none", check=1).stderr
    assert "FROM is not a valid change command" in engine.docker("commit", "-c", "FROM x", changed, check=1).stderr
    bad = ask(
        engine.socket, "POST", f"/commit?container={changed}&repo=Upper", b"", {"Content-Type": "application/json"}
    )
    assert bad.status in (400, 500)

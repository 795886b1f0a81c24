"""Services of a provider: the protocol of compose 5, spoken by a program on the PATH and by a plugin of docker."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.composing import Both

_PROGRAM = """#!{python}
import json, os, sys
words = sys.argv[1:]
with open({log!r}, "a") as log:
    log.write(" ".join(words) + "\\n")
def say(kind, message):
    print(json.dumps({{"type": kind, "message": message}}), flush=True)
if words == ["compose", "metadata"]:
    sys.stdout.write(open({metadata!r}).read())
elif os.path.exists({answer!r}):
    sys.stdout.write(open({answer!r}).read())
    sys.stderr.write("in words\\n")
    sys.exit(os.path.exists({answer!r} + ".fail"))
elif "up" in words:
    say("info", "making it")
    say("debug", "unseen")
    say("setenv", "URL=http://x:1/?a=b")
    say("rawsetenv", "TOKEN=" + os.environ.get("GIVEN", ""))
"""
_PROJECT = """
name: {name}
services:
  db: {{provider: {{type: {kind}, options: {{size: 256, names: [a, b], on: true}}}}}}
  app:
    image: busybox
    init: true
    stop_grace_period: 0s
    command: sh -c "echo $$DB_URL $$TOKEN; sleep 1000"
    environment: {{TOKEN: own}}
    depends_on: [db]
  other: {{image: busybox, command: "env"}}
"""


class Provider:
    """The provider `cloud`; `calls` are the words that it was called with since the last question."""

    def __init__(self, folder: Path, ours: Both) -> None:
        self._log, self.metadata, self.answer = folder / "log", folder / "metadata", folder / "answer"
        self.program = folder / "bin" / "cloud"
        self.program.parent.mkdir()
        self.metadata.touch()
        log, metadata, answer = (str(path) for path in (self._log, self.metadata, self.answer))
        self.program.write_text(_PROGRAM.format(python=sys.executable, log=log, metadata=metadata, answer=answer))
        self.program.chmod(0o755)
        ours.engine.env["PATH"] = f"{self.program.parent}:{ours.engine.env['PATH']}"
        ours.engine.env["GIVEN"] = "given"

    def calls(self) -> list[str]:
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        self._log.unlink(missing_ok=True)
        return [line.removeprefix("compose ") for line in lines if line != "compose metadata"]


@pytest.fixture
def provider(ours: Both, tmp_path: Path) -> Iterator[Provider]:
    ours.write(_PROJECT.format(name=ours.name, kind="cloud"))
    before = dict(ours.engine.env)
    yield Provider(tmp_path, ours)
    ours.havre("down", "-t", "0", check=None)
    ours.engine.env.clear()
    ours.engine.env.update(before)


def test_a_providers_life(ours: Both, provider: Provider) -> None:
    options = "--size=256 --names=a --names=b --on=true"
    up = ours.havre("up", "-d")
    assert provider.calls() == [f"--project-name={ours.name} up {options} db"]
    assert 'overrides environment variable "TOKEN" in service "app"' in up.stderr
    assert ours.havre("logs", "--no-log-prefix", "app").stdout == "http://x:1/?a=b given\n"
    assert "DB_URL" not in ours.havre("logs", "--no-log-prefix", "other").stdout
    before = ours.containers()
    assert sorted(before) == ["app-1", "other-1"]
    ours.havre("up", "-d", "app")
    assert ours.containers() == before
    assert "orphan" not in up.stderr
    provider.calls()
    ours.havre("stop")
    assert provider.calls() == []
    ran = ours.havre("run", "--rm", "app", "sh", "-c", "echo $DB_URL")
    assert ran.stdout == "http://x:1/?a=b\n"
    assert ours.havre("run", "--rm", "--no-deps", "app", "sh", "-c", "echo $DB_URL").stdout == "\n"
    assert "managed by a provider" in ours.havre("run", "db", check=1).stderr
    provider.calls()
    ours.havre("down", "-t", "0")
    assert provider.calls() == [f"--project-name={ours.name} down {options} db"]
    assert ours.havre("config", "--images").stdout.split() == ["busybox", "busybox"]
    assert "db" not in ours.havre("pull", "--policy", "missing").stderr


def test_the_attached_up_calls_the_provider_once(ours: Both, provider: Provider) -> None:
    ours.write(_PROJECT.format(name=ours.name, kind="cloud").replace("; sleep 1000", ""))
    assert "app-1" in (told := ours.havre("up")).stdout
    assert "http://x:1/?a=b given" in told.stdout
    assert len(provider.calls()) == 1


def test_metadata_says_which_options_and_commands_there_are(ours: Both, provider: Provider) -> None:
    one = {"parameters": [{"name": "size", "required": True}]}
    provider.metadata.write_text(json.dumps({"description": "d", "up": one, "down": {"parameters": []}, "stop": one}))
    ours.havre("up", "-d")
    ours.havre("stop", "-t", "0")
    ours.havre("down", "-t", "0")
    name = f"--project-name={ours.name}"
    assert provider.calls() == [f"{name} up --size=256 db", f"{name} stop --size=256 db", f"{name} down db"]
    ours.write(_PROJECT.format(name=ours.name, kind="cloud").replace("size: 256, ", ""))
    told = ours.havre("up", "-d", check=1).stderr
    assert 'required parameter "size" is missing from provider "cloud" definition' in told
    assert not ours.containers()


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ('{"type": "error", "message": "no money"}\n', "no money"),
        ("not JSON\n", "invalid response from provider: not JSON"),
        ('{"type": "setenv", "message": "novalue"}\n', "invalid response from provider: novalue"),
        ('{"type": "else", "message": ""}\n', "invalid response from provider: else"),
        ("", "failed to create service provider: exit status 1: in words"),
    ],
)
def test_a_failing_provider_lets_nothing_be_created(ours: Both, provider: Provider, answer: str, told: str) -> None:
    provider.answer.write_text(answer)
    (fail := provider.answer.with_suffix(".fail")).touch()
    assert told in ours.havre("up", "-d", check=1).stderr
    assert not ours.containers()
    fail.unlink()
    provider.answer.unlink()


def test_a_plugin_of_docker_and_a_missing_provider(ours: Both, provider: Provider, tmp_path: Path) -> None:
    plugins = tmp_path / "config" / "cli-plugins"
    plugins.mkdir(parents=True)
    provider.program.rename(plugins / "docker-plugged")
    ours.engine.env["DOCKER_CONFIG"] = ours.engine.env["HAVRE_CONFIG"] = str(tmp_path / "config")
    ours.write(_PROJECT.format(name=ours.name, kind="plugged"))
    ours.havre("up", "-d")
    assert len(provider.calls()) == 1
    ours.havre("down", "-t", "0")
    for kind, told in (("cloud", 'no provider "cloud"'), ("compose", "not a valid provider type")):
        ours.write(_PROJECT.format(name=ours.name, kind=kind))
        assert told in ours.havre("up", "-d", check=None).stderr
    ours.write(f"name: {ours.name}\nservices: {{}}\n")

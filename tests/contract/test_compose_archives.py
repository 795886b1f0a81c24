"""`compose commit`, `export` and `volumes`, which docker compose 2.26 does not have."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile

from support.composing import Both
from support.engines import HAVRE
from support.terminals import Terminal

_PROJECT = """
name: {name}
services:
  app:
    image: busybox
    init: true
    stop_grace_period: 0s
    command: sleep 1000
    scale: 2
    volumes: ["data:/data", "/anonymous"]
  other: {{image: busybox, command: "true", volumes: ["more:/more"]}}
volumes: {{data: , more: {{labels: {{a: b}}}}}}
"""


def test_a_running_container_becomes_an_image(ours: Both) -> None:
    ours.write(_PROJECT.format(name=ours.name))
    ours.havre("up", "-d")
    ours.havre("exec", "-T", "--index", "2", "app", "touch", "/second")
    name = f"{ours.name}-committed:1"
    change = ("-c", "CMD ls /second", "-m", "said", "-a", "me")
    made = ours.havre("commit", "--index", "2", *change, "app", name).stdout.strip()
    assert ours.engine.out("run", "--rm", name) == "/second"
    row = json.loads(ours.engine.out("inspect", name))[0]
    assert (row["Id"], row["Comment"], row["Author"]) == (made, "said", "me")
    ours.engine.docker("rmi", name, check=0)
    ours.havre("stop", "app")
    assert 'service "app" is not running' in ours.havre("commit", "app", name, check=1).stderr
    assert not ours.engine.out("images", "-q", name)


def test_a_running_containers_files_come_out_as_an_archive(ours: Both) -> None:
    ours.write(_PROJECT.format(name=ours.name))
    ours.havre("up", "-d")
    ours.havre("exec", "-T", "app", "touch", "/mine")
    command = [str(HAVRE), "compose", "-f", str(ours.file), "export", "app"]
    streamed = subprocess.run(command, env=ours.engine.env, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(streamed)) as archive:
        assert "mine" in archive.getnames()
    target = ours.folder / "out.tar"
    ours.havre("export", "-o", str(target), "app")
    assert target.stat().st_mode & 0o777 == 0o600
    assert target.read_bytes() == streamed
    assert sorted(path.name for path in ours.folder.iterdir()) == ["compose.yaml", "out.tar"]
    told = ours.havre("export", "-o", str(ours.folder / "none" / "x"), "app", check=1).stderr
    assert "invalid output path" in told
    with Terminal(command, env=ours.engine.env) as terminal:
        code, shown = terminal.end()
    assert code == 1
    assert "output option is required when exporting to terminal" in shown
    ours.havre("stop", "app")
    assert 'service "app" is not running' in ours.havre("export", "app", check=1).stderr


def test_volumes_are_listed_by_project_and_service(ours: Both) -> None:
    ours.write(_PROJECT.format(name=ours.name))
    ours.havre("up", "-d")
    names = [f"{ours.name}_data", f"{ours.name}_more"]
    assert ours.havre("volumes", "-q").stdout.split() == names
    assert ours.havre("volumes", "-q", "app").stdout.split() == names[:1]
    assert ours.havre("volumes").stdout.splitlines()[0].split() == ["DRIVER", "VOLUME", "NAME"]
    rows = [json.loads(line) for line in ours.havre("volumes", "--format", "json").stdout.splitlines()]
    assert [row["Name"] for row in rows] == names
    assert "a=b" in rows[1]["Labels"]
    assert ours.havre("volumes", "--format", "{{.Name}}", "app").stdout == names[0] + "\n"
    assert "no such service: none" in ours.havre("volumes", "none", check=1).stderr

"""The effect of keys of compose 5."""

from __future__ import annotations

import json
from pathlib import Path

from support.composing import Both
from support.registry import real_registry
from support.waiting import until


def test_an_image_is_pulled_again_as_often_as_the_policy_says(ours: Both, tmp_path: Path) -> None:
    with real_registry(tmp_path / "registry", inside=ours.engine.inside) as registry:
        image = f"{registry.host}/made:1"

        def publish(text: str) -> None:
            ours.engine.docker("build", "-t", image, "-", stdin=f"FROM busybox\nLABEL made={text}\n", check=0)
            ours.engine.docker("push", image, check=0)

        def made() -> str:
            (name,) = ours.containers().values()
            return ours.engine.out("inspect", "-f", "{{.Config.Labels.made}}", name)

        publish("first")
        old = ours.engine.out("images", "-q", image)
        publish("second")
        ours.engine.docker("tag", old, image, check=0)
        text = f"name: {ours.name}\nservices: {{s: {{image: '{image}', pull_policy: %s, command: 'true'}}}}\n"
        ours.write(text % "every_1h")
        ours.havre("up", "-d")
        assert made() == "first"
        ours.write(text % "every_1s")
        until(lambda: ours.havre("up", "-d") and made() == "second", "the newer image")
        assert "Pulled" not in ours.havre("up", "-d", "--pull", "missing").stderr


def test_a_service_gets_the_daemons_socket_and_the_credentials(ours: Both, tmp_path: Path) -> None:
    (tmp_path / "docker").mkdir()
    entry = {"auth": "dTpw"}
    (tmp_path / "docker" / "config.json").write_text(json.dumps({"auths": {"r:5": entry}, "psFormat": "x"}))
    ours.engine.env["DOCKER_CONFIG"] = ours.engine.env["HAVRE_CONFIG"] = str(tmp_path / "docker")
    ours.write(f"""
name: {ours.name}
services:
  s:
    image: busybox
    init: true
    command: sleep 1000
    use_api_socket: true
  own: {{image: busybox, init: true, command: sleep 1000, use_api_socket: true, environment: {{DOCKER_CONFIG: /mine}}}}
""")
    ours.havre("up", "-d")
    inode = ours.havre("exec", "-T", "s", "stat", "-c", "%i", "/var/run/docker.sock").stdout
    assert int(inode) == ours.engine.socket.stat().st_ino
    shown = ours.havre("exec", "-T", "s", "sh", "-c", "cat $DOCKER_CONFIG/config.json").stdout
    assert json.loads(shown) == {"auths": {"r:5": entry}}
    assert ours.havre("exec", "-T", "own", "sh", "-c", "echo $DOCKER_CONFIG").stdout == "/mine\n"
    before = ours.containers()
    ours.havre("up", "-d")
    assert ours.containers() == before
    ran = ours.havre("run", "--rm", "s", "sh", "-c", "ls /var/run/docker.sock $DOCKER_CONFIG")
    assert ran.stdout.split() == ["/var/run/docker.sock", "/run/secrets/docker:", "config.json"]


def test_labels_of_an_anonymous_volume(ours: Both) -> None:
    ours.write(f"""
name: {ours.name}
services:
  s: {{image: busybox, volumes: [{{type: volume, target: /v, volume: {{labels: {{own: label}}}}}}]}}
""")
    ours.havre("up", "--no-start")
    (volume,) = ours.engine.out("volume", "ls", "-q", "--filter", "label=own=label").split()
    assert json.loads(ours.engine.out("inspect", *ours.containers().values()))[0]["Mounts"][0]["Name"] == volume


def test_models_are_read_and_refused_in_words(ours: Both) -> None:
    ours.write(f"""
name: {ours.name}
services: {{s: {{image: busybox, models: [m]}}, plain: {{image: busybox, command: "true"}}}}
models: {{m: {{model: ai/some}}}}
""")
    assert ours.havre("config", "--models").stdout == "ai/some\n"
    for words in (("up", "-d"), ("create",), ("run", "s")):
        told = ours.havre(*words, check=1).stderr
        assert 'service "s" uses the model "m": havre has no model runner' in told
    ours.havre("up", "-d", "plain")
    ours.havre("ps", "-a")

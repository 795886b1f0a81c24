"""`--mount type=image`, as docker 28 has it (dockerd 26 refuses the type); the leak check sees that nothing stays."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import pytest

from support.engines import Engine
from support.raw import ask

RUN = ("run", "--rm", "--network", "none")


@pytest.fixture
def tools(havred: Engine) -> Iterator[Engine]:
    """An image `tools`: busybox with a directory of one file and a link out of it."""
    script = "mkdir /kit && echo sharp > /kit/knife && ln -s / /kit/out"
    havred.out("run", "--network", "none", "--name", "maker", "busybox", "sh", "-c", script)
    havred.out("commit", "maker", "tools")
    havred.out("rm", "maker")
    yield havred
    havred.docker("rmi", "-f", "tools")


def test_seen_and_never_written(tools: Engine) -> None:
    shown = tools.havre(*RUN, "--mount", "type=image,src=tools,dst=/t", "busybox", "sh", "-c",
                        "cat /t/kit/knife; ls -d /t/bin; echo x > /t/kit/new || echo refused", check=0)  # fmt: skip
    assert shown.stdout.split() == ["sharp", "/t/bin", "refused"]
    part = "type=image,source=tools,target=/t,image-subpath="
    assert tools.havre(*RUN, "--mount", part + "kit", "busybox", "ls", "/t", check=0).stdout.split() == ["knife", "out"]
    assert tools.havre(*RUN, "--mount", part + "kit/knife", "busybox", "cat", "/t", check=0).stdout == "sharp\n"
    for bad, code, words in (
        ("../x", 125, "relative path within the image"),
        ("nope", 127, "cannot access path"),
        ("kit/out", 125, "path concatenation escapes the base directory"),
    ):
        assert words in tools.havre(*RUN, "--mount", part + bad, "busybox", "true", check=code).stderr
    missing = tools.havre(*RUN, "--mount", "type=image,src=nope,dst=/t", "busybox", "true", check=125)
    assert "No such image: nope" in missing.stderr
    mixed = tools.havre(*RUN, "--mount", "type=volume,image-subpath=a,dst=/t", "busybox", "true", check=125)
    assert "cannot mix 'image-*' options" in mixed.stderr


def test_kept_while_used(tools: Engine) -> None:
    mount = {"Type": "image", "Source": "tools", "Target": "/t", "ImageOptions": {"Subpath": "kit"}}
    body = {"Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": {"NetworkMode": "none", "Mounts": [mount]}}
    made = ask(tools.socket, "POST", "/containers/create?name=user", body)
    assert made.status == 201, made.body
    image = tools.out("image", "inspect", "--format", "{{.Id}}", "tools")
    (point,) = json.loads(tools.out("inspect", "--format", "{{json .Mounts}}", "user"))
    assert (point["Type"], point["Name"], point["Source"], point["RW"]) == ("image", "tools", image, False)
    assert tools.out("cp", "user:/t/knife", "-")
    assert "must force" in tools.docker("rmi", "tools", check=1).stderr
    tools.out("start", "user")
    assert "cannot be forced" in tools.docker("rmi", "-f", image, check=1).stderr
    tools.stop(signal.SIGKILL)
    tools.start()
    assert tools.out("exec", "user", "cat", "/t/knife") == "sharp"
    taken = (*RUN, "--volumes-from", "user", "busybox", "cat", "/t/knife")
    assert tools.out(*taken) == "sharp"
    tools.out("stop", "-t", "0", "user")
    tools.out("start", "user")
    assert tools.out("exec", "user", "cat", "/t/knife") == "sharp"
    tools.out("rm", "-f", "user")
    tools.out("rmi", "tools")

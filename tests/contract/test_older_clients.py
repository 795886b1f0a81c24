"""What the words of older API versions meant, and details on which clients rely."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from support.engines import Engine
from support.raw import Reply, ask


def create(engine: Engine, version: str, host: dict[str, Any], **config: Any) -> Reply:
    body = {"Image": "busybox", "Cmd": ["cat", "/proc/self/mountinfo"], "HostConfig": host, **config}
    return ask(engine.socket, "POST", f"/v{version}/containers/create", body)


def refusal(engine: Engine, version: str, host: dict[str, Any], **config: Any) -> str:
    reply = create(engine, version, host, **config)
    assert reply.status == 400, reply.body
    return reply.message


def test_several_networks_at_creation_came_with_1_44(engine: Engine) -> None:
    networks = {"EndpointsConfig": {"bridge": {}, "other": {}}}
    text = refusal(engine, "1.43", {}, NetworkingConfig=networks)
    assert text.startswith("Container cannot be created with multiple network endpoints: ")
    assert create(engine, "1.44", {}, NetworkingConfig=networks).status == 201


def test_parts_of_volumes_came_with_1_45(engine: Engine) -> None:
    part = {"Type": "volume", "Source": "v", "Target": "/v", "VolumeOptions": {"Subpath": "x"}}
    assert refusal(engine, "1.44", {"Mounts": [part]}) == "VolumeOptions.Subpath needs API v1.45 or newer"


def test_options_of_another_mount_type_are_refused_since_1_42(engine: Engine) -> None:
    mixed = {"Type": "tmpfs", "Target": "/t", "VolumeOptions": {}}
    assert create(engine, "1.41", {"Mounts": [mixed]}).status == 201
    assert "VolumeOptions must not be specified" in refusal(engine, "1.42", {"Mounts": [mixed]})


@pytest.mark.parametrize("form", ["bind", "mount"])
def test_read_only_binds_were_not_recursive_before_1_44(engine: Engine, form: str) -> None:
    mount = {"Type": "bind", "Source": "/dev", "Target": "/d", "ReadOnly": True}
    host = {"Binds": ["/dev:/d:ro"]} if form == "bind" else {"Mounts": [mount]}
    modes = {}
    for version in ("1.43", "1.44"):
        id = create(engine, version, host).json["Id"]
        lines = engine.out("start", "-a", id).splitlines()
        modes[version] = {line.split()[4]: line.split()[5].split(",")[0] for line in lines}
    assert (modes["1.43"]["/d"], modes["1.43"]["/d/shm"]) == ("ro", "rw")
    assert (modes["1.44"]["/d"], modes["1.44"]["/d/shm"]) == ("ro", "ro")


def test_broken_json_is_told_in_the_words_of_go(engine: Engine) -> None:
    reply = ask(engine.socket, "POST", "/containers/create", b'{invalid "Image"}')
    assert reply.status == 400
    assert "invalid JSON: invalid character 'i' looking for beginning of object key string" in reply.message


@pytest.mark.parametrize(
    ("path", "text"), [("/", "destination can't be '/'"), ("//", "destination can't be '/'"), ("x", "must be absolute")]
)
def test_where_a_tmpfs_cannot_be(engine: Engine, path: str, text: str) -> None:
    assert text in refusal(engine, "1.45", {"Tmpfs": {path: ""}})


@pytest.mark.parametrize(("kind", "status"), [("Pid", 500), ("Ipc", 409), ("Network", 409)])
def test_joining_what_does_not_run(engine: Engine, kind: str, status: int) -> None:
    engine.out("create", "--name", "still", "busybox")
    id = create(engine, "1.45", {f"{kind}Mode": "container:still"}).json["Id"]
    reply = ask(engine.socket, "POST", f"/containers/{id}/start")
    assert reply.status == status
    assert "join" in reply.message
    assert not engine.out("ps", "-q")


def test_a_terminal_that_is_started_without_one_comes_in_frames(engine: Engine) -> None:
    engine.out("run", "-d", "--name", "host", "busybox", "sleep", "1000")
    asked = {"Cmd": ["stty", "size"], "AttachStdout": True, "Tty": True, "ConsoleSize": [57, 123]}
    id = ask(engine.socket, "POST", "/containers/host/exec", asked).json["Id"]
    reply = ask(engine.socket, "POST", f"/exec/{id}/start", {"Tty": False, "ConsoleSize": [57, 123]})
    engine.docker("rm", "-f", "host", check=0)
    stream, size = struct.unpack(">BxxxI", reply.body[:8])
    assert (stream, reply.body[8 : 8 + size]) == (1, b"57 123\r\n")


def test_the_daemons_own_directory_is_shown_as_a_slave(engine: Engine, tmp_path: Path) -> None:
    root = engine.root / "data"
    for source in (root, Path("/"), root / "containers"):
        id = create(engine, "1.45", {"Binds": [f"{source}:/host"]}).json["Id"]
        assert engine.out("inspect", "-f", "{{(index .Mounts 0).Propagation}}", id) == "rslave"
        assert " /host " in engine.out("start", "-a", id)
        assert 'must use either propagation mode "rslave"' in refusal(
            engine, "1.45", {"Binds": [f"{source}:/host:rprivate"]}
        )
    id = create(engine, "1.45", {"Binds": [f"{tmp_path}:/host"]}).json["Id"]
    assert engine.out("inspect", "-f", "{{(index .Mounts 0).Propagation}}", id) == "rprivate"


def test_lists_of_networks_told_of_their_containers_before_1_28(engine: Engine) -> None:
    engine.out("network", "create", "told")
    identifier = engine.out("run", "-d", "--name", "member", "--network", "told", "busybox", "sleep", "1000")
    filters = "filters=" + quote('{"name":["told"]}')
    (older,) = ask(engine.socket, "GET", f"/v1.27/networks?{filters}").json
    (newer,) = ask(engine.socket, "GET", f"/v1.28/networks?{filters}").json
    engine.out("rm", "-f", "member")
    engine.out("network", "rm", "told")
    assert [each["Name"] for each in older["Containers"].values()] == ["member"]
    assert list(older["Containers"]) == [identifier]
    assert newer["Containers"] == {}


def test_images_were_filtered_by_one_name_before_1_41(engine: Engine) -> None:
    engine.out("tag", "busybox", "other/box:1")
    older = ask(engine.socket, "GET", "/v1.40/images/json?filter=other/*").json
    newer = ask(engine.socket, "GET", "/v1.41/images/json?filter=no-such").json
    engine.out("rmi", "other/box:1")
    assert [each["RepoTags"] for each in older] == [["other/box:1"]]
    assert newer

"""The API as raw HTTP: statuses, headers and texts that clients depend on."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Iterator

import pytest

from support.engines import Engine
from support.raw import Reply, ask


@pytest.fixture
def idle(engine: Engine) -> Iterator[str]:
    """The ID of a container that was never started."""
    identifier = engine.out("create", "--name", "idle", "busybox", "sleep", "1000")
    yield identifier
    engine.docker("rm", "-f", identifier)


def post(engine: Engine, target: str, body: object = None) -> Reply:
    return ask(engine.socket, "POST", target, body)


def get(engine: Engine, target: str) -> Reply:
    return ask(engine.socket, "GET", target)


class TestEdge:
    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    def test_ping(self, engine: Engine, method: str) -> None:
        reply = ask(engine.socket, method, "/_ping")
        assert reply.status == 200
        assert reply.body == (b"OK" if method == "GET" else b"")
        assert float(reply.headers["Api-Version"]) >= 1.45
        assert reply.headers["Ostype"] == "linux"
        assert reply.headers["Docker-Experimental"] == "false"
        assert "no-cache" in reply.headers["Cache-Control"]

    def test_version(self, engine: Engine) -> None:
        shown = get(engine, "/version").json
        assert shown["MinAPIVersion"] == "1.24"
        assert (shown["Os"], shown["Arch"]) == ("linux", "amd64")
        assert {"Version", "ApiVersion", "GitCommit", "GoVersion", "KernelVersion", "Components"} <= set(shown)

    def test_version_names_the_programs_below(self, havred: Engine) -> None:
        versions = {each["Name"]: each["Version"] for each in get(havred, "/version").json["Components"]}
        for program in ("crun", "runc", "conmon"):
            said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
            assert versions[program] == said.splitlines()[0].split()[-1]

    @pytest.mark.parametrize("target", ["/nothing", "/v1.45/nothing", "/containers/json/", "/_ping/x"])
    def test_unknown_route(self, engine: Engine, target: str) -> None:
        reply = get(engine, target)
        assert (reply.status, reply.message) == (404, "page not found")

    def test_wrong_method_is_unknown_too(self, engine: Engine) -> None:
        reply = ask(engine.socket, "PUT", "/containers/json", b"")
        assert (reply.status, reply.message) == (404, "page not found")

    @pytest.mark.parametrize("version", ["1.24", "1.30", "1.41", "1.45"])
    def test_older_versions(self, engine: Engine, version: str) -> None:
        reply = get(engine, f"/v{version}/containers/json")
        assert (reply.status, reply.json) == (200, [])

    @pytest.mark.parametrize(
        ("version", "text"), [("1.12", "client version 1.12 is too old"), ("9.99", "client version 9.99 is too new")]
    )
    def test_versions_out_of_range(self, engine: Engine, version: str, text: str) -> None:
        reply = get(engine, f"/v{version}/containers/json")
        assert reply.status == 400
        assert text in reply.message

    def test_options_is_always_fine(self, engine: Engine) -> None:
        assert ask(engine.socket, "OPTIONS", "/containers/json").status == 200

    def test_empty_lists_are_lists(self, engine: Engine) -> None:
        assert get(engine, "/containers/json").body.strip() == b"[]"
        assert get(engine, "/volumes").json == {"Volumes": [], "Warnings": None}

    def test_info(self, engine: Engine) -> None:
        shown = get(engine, "/info").json
        assert shown["Images"] >= 1
        assert shown["OSType"] == "linux"
        assert shown["NCPU"] >= 1
        assert shown["MemTotal"] > 1 << 20
        assert {"ID", "Driver", "Runtimes", "DefaultRuntime", "SecurityOptions", "CgroupVersion", "Warnings"} <= set(
            shown
        )

    def test_disk_usage(self, engine: Engine) -> None:
        shown = get(engine, "/system/df").json
        assert {"LayersSize", "Images", "Containers", "Volumes", "BuildCache"} <= set(shown)
        assert shown["LayersSize"] > 0

    def test_keep_alive_connection_serves_many(self, engine: Engine) -> None:
        with socket.socket(socket.AF_UNIX) as raw:
            raw.connect(str(engine.socket))
            for _ in range(3):
                raw.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
                answer = b""
                while not answer.endswith(b"OK"):
                    answer += raw.recv(4096)
                assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


class TestBodies:
    @pytest.mark.parametrize(
        ("body", "text"),
        [
            (b"{", "unexpected"),
            (b'{"Image": 3}', "Image"),
            (b'{"Image": "busybox", "HostConfig": {"Memory": "lots"}}', "Memory"),
            (b"", ""),
            (b'{"Image":"busybox"} trailing', ""),
        ],
    )
    def test_malformed_create_is_400(self, engine: Engine, body: bytes, text: str) -> None:
        reply = post(engine, "/containers/create", body)
        assert reply.status == 400
        assert text in reply.message
        assert get(engine, "/containers/json?all=1").json == []

    def test_lists_that_may_be_a_string(self, engine: Engine) -> None:
        host = {"CapAdd": "NET_ADMIN", "CapDrop": "MKNOD"}
        body = {"Image": "busybox", "Entrypoint": "echo", "Cmd": "a b", "Shell": "ash", "HostConfig": host}
        made = post(engine, "/containers/create", body)
        assert made.status == 201
        shown = get(engine, f"/containers/{made.json['Id']}/json").json
        assert (shown["Config"]["Entrypoint"], shown["Config"]["Cmd"]) == (["echo"], ["a b"])
        assert shown["Config"]["Shell"] == ["ash"]
        assert [shown["HostConfig"][key] for key in ("CapAdd", "CapDrop")] == [["NET_ADMIN"], ["MKNOD"]]
        for refused in ({"Env": "A=1"}, {"OnBuild": "RUN x"}, {"HostConfig": {"Dns": "127.0.0.1"}}):
            assert post(engine, "/containers/create", {"Image": "busybox", **refused}).status == 400

    def test_nulls_are_zero_values(self, engine: Engine) -> None:
        host = {"CapAdd": None, "Sysctls": None, "RestartPolicy": None, "PortBindings": {"80/tcp": None}}
        body = {"Image": "busybox", "User": None, "Labels": {"a": None}, "HostConfig": host}
        made = post(engine, "/containers/create", body)
        assert made.status == 201
        shown = get(engine, f"/containers/{made.json['Id']}/json").json
        assert (shown["Config"]["User"], shown["Config"]["Labels"]) == ("", {"a": ""})

    def test_wrong_content_type_is_400(self, engine: Engine) -> None:
        reply = ask(engine.socket, "POST", "/containers/create", b"{}", {"Content-Type": "text/plain"})
        assert reply.status == 400
        assert "application/json" in reply.message

    def test_keys_in_any_case_and_unknown_ones(self, engine: Engine) -> None:
        reply = post(engine, "/containers/create", {"image": "busybox", "CMD": ["true"], "Novelty": {"x": 1}})
        assert reply.status == 201
        assert reply.json["Warnings"] == []
        shown = get(engine, f"/containers/{reply.json['Id']}/json").json
        assert shown["Config"]["Cmd"] == ["true"]
        assert ask(engine.socket, "DELETE", f"/containers/{reply.json['Id']}").status == 204

    def test_command_as_a_string(self, engine: Engine) -> None:
        reply = post(engine, "/containers/create", {"Image": "busybox", "Cmd": "true", "Env": None})
        assert get(engine, f"/containers/{reply.json['Id']}/json").json["Config"]["Cmd"] == ["true"]
        ask(engine.socket, "DELETE", f"/containers/{reply.json['Id']}")

    def test_missing_image_is_404(self, engine: Engine) -> None:
        reply = post(engine, "/containers/create", {"Image": "nowhere:1"})
        assert (reply.status, reply.message) == (404, "No such image: nowhere:1")

    def test_no_command_is_400(self, engine: Engine) -> None:
        engine.docker("import", "-", "hollow", stdin=b"\0" * 10240, check=0)
        reply = post(engine, "/containers/create", {"Image": "hollow"})
        assert reply.status == 400
        assert "no command specified" in reply.message.lower()
        engine.out("rmi", "hollow")


class TestContainers:
    def test_statuses(self, engine: Engine, idle: str) -> None:
        assert post(engine, f"/containers/{idle}/start").status == 204
        assert post(engine, f"/containers/{idle}/start").status == 304
        assert post(engine, f"/containers/{idle}/pause").status == 204
        assert post(engine, f"/containers/{idle}/pause").status == 409
        assert post(engine, f"/containers/{idle}/unpause").status == 204
        assert post(engine, f"/containers/{idle}/unpause").status == 500
        assert ask(engine.socket, "DELETE", f"/containers/{idle}").status == 409
        assert post(engine, f"/containers/{idle}/stop?t=0").status == 204
        assert post(engine, f"/containers/{idle}/stop").status == 304
        assert post(engine, f"/containers/{idle}/kill").status == 409
        assert post(engine, f"/containers/{idle}/rename?name=idle").status == 400
        assert post(engine, f"/containers/{idle}/rename").status in {400, 500}

    def test_unknown_container(self, engine: Engine) -> None:
        for method, target in [
            ("GET", "/containers/nobody/json"),
            ("POST", "/containers/nobody/start"),
            ("POST", "/containers/nobody/stop"),
            ("POST", "/containers/nobody/kill"),
            ("POST", "/containers/nobody/wait"),
            ("GET", "/containers/nobody/top"),
            ("GET", "/containers/nobody/logs?stdout=1"),
            ("DELETE", "/containers/nobody"),
        ]:
            reply = ask(engine.socket, method, target)
            assert reply.status == 404, target
            assert reply.message.endswith("No such container: nobody"), target

    def test_wait_answers_before_the_end(self, engine: Engine, idle: str) -> None:
        with socket.socket(socket.AF_UNIX) as raw:
            raw.settimeout(15)
            raw.connect(str(engine.socket))
            raw.sendall(f"POST /containers/{idle}/wait?condition=next-exit HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert raw.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")
            post(engine, f"/containers/{idle}/start")
            post(engine, f"/containers/{idle}/kill")
            rest = b""
            while b"StatusCode" not in rest:
                rest += raw.recv(4096)
            assert b'{"StatusCode":137}' in rest

    def test_bad_wait_condition(self, engine: Engine, idle: str) -> None:
        reply = post(engine, f"/containers/{idle}/wait?condition=sunday")
        assert (reply.status, reply.message) == (400, 'invalid condition: "sunday"')

    def test_logs_want_a_stream(self, engine: Engine) -> None:
        reply = get(engine, "/containers/nobody/logs")
        assert reply.status == 400
        assert "must choose at least one stream" in reply.message

    def test_filters_as_map_and_list(self, engine: Engine, idle: str) -> None:
        for filters in ({"name": ["idle"]}, {"name": {"idle": True}}):
            asked = urllib.parse.quote(json.dumps(filters))
            assert [c["Id"] for c in get(engine, f"/containers/json?all=1&filters={asked}").json] == [idle]
        assert get(engine, "/containers/json?filters=%7Bnot-json").status == 400
        assert get(engine, "/containers/json?filters=" + urllib.parse.quote('{"sky":["blue"]}')).status == 400

    def test_name_conflict_is_409(self, engine: Engine, idle: str) -> None:
        assert post(engine, "/containers/create?name=idle", {"Image": "busybox"}).status == 409

    def test_list_entry(self, engine: Engine, idle: str) -> None:
        (entry,) = get(engine, "/containers/json?all=1").json
        assert entry["Names"] == ["/idle"]
        assert entry["Image"] == "busybox"
        assert entry["ImageID"].startswith("sha256:")
        assert entry["Command"] == "sleep 1000"
        assert abs(entry["Created"] - time.time()) < 60
        assert (entry["State"], entry["Status"]) == ("created", "Created")
        assert entry["HostConfig"]["NetworkMode"] in {"default", "bridge"}
        assert set(entry["NetworkSettings"]["Networks"]) == {"bridge"}
        assert (entry["Ports"], entry["Labels"], entry["Mounts"]) == ([], {}, [])


class TestStreams:
    def attach(self, engine: Engine, identifier: str, upgrade: bool) -> socket.socket:
        raw = socket.socket(socket.AF_UNIX)
        raw.settimeout(15)
        raw.connect(str(engine.socket))
        extra = "Connection: Upgrade\r\nUpgrade: tcp\r\n" if upgrade else ""
        target = f"/v1.45/containers/{identifier}/attach?stream=1&stdin=1&stdout=1&stderr=1"
        raw.sendall(f"POST {target} HTTP/1.1\r\nHost: x\r\n{extra}Content-Length: 0\r\n\r\n".encode())
        return raw

    def head(self, raw: socket.socket) -> str:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += raw.recv(1)
        return head.decode()

    @pytest.mark.parametrize("upgrade", [True, False])
    def test_attach_frames(self, engine: Engine, upgrade: bool) -> None:
        reply = post(
            engine,
            "/containers/create",
            {
                "Image": "busybox",
                "Cmd": ["sh", "-c", "read x; echo out$x; echo err >&2"],
                "OpenStdin": True,
                "StdinOnce": True,
            },
        )
        identifier = reply.json["Id"]
        with self.attach(engine, identifier, upgrade) as raw:
            head = self.head(raw)
            if upgrade:
                assert head.startswith("HTTP/1.1 101 UPGRADED\r\n")
                assert "Content-Type: application/vnd.docker.multiplexed-stream\r\n" in head
                assert "Upgrade: tcp\r\n" in head
            else:
                assert head.startswith("HTTP/1.1 200 OK\r\n")
                assert "Content-Type: application/vnd.docker.raw-stream\r\n" in head
            post(engine, f"/containers/{identifier}/start")
            raw.sendall(b"put\n")
            raw.shutdown(socket.SHUT_WR)
            data = b"".join(iter(lambda: raw.recv(4096), b""))
        frames = []
        while data:
            stream, size = struct.unpack(">BxxxL", data[:8])
            frames.append((stream, data[8 : 8 + size]))
            data = data[8 + size :]
        assert sorted(frames) == [(1, b"output\n"), (2, b"err\n")]
        ask(engine.socket, "DELETE", f"/containers/{identifier}?force=1")

    def test_attach_to_nobody_is_404(self, engine: Engine) -> None:
        with self.attach(engine, "nobody", True) as raw:
            assert " 404 " in self.head(raw).splitlines()[0]

    def test_detached_exec_that_cannot_start_is_400(self, engine: Engine, idle: str) -> None:
        post(engine, f"/containers/{idle}/start")
        made = post(engine, f"/containers/{idle}/exec", {"Cmd": ["nothing"]})
        assert made.status == 201
        reply = post(engine, f"/exec/{made.json['Id']}/start", {"Detach": True})
        assert reply.status == 400
        assert "executable file not found" in reply.message
        shown = get(engine, f"/exec/{made.json['Id']}/json").json
        assert shown["Running"] is False

    def test_exec_without_a_command(self, engine: Engine, idle: str) -> None:
        post(engine, f"/containers/{idle}/start")
        reply = post(engine, f"/containers/{idle}/exec", {"Cmd": []})
        assert reply.status == 400
        assert "exec command" in reply.message.lower()


class TestEvents:
    def test_of_a_short_life(self, engine: Engine) -> None:
        begun = time.time() - 1
        engine.docker("run", "--rm", "--name", "brief", "-l", "k=v", "busybox", "sh", "-c", "exit 3", check=3)
        shown = engine.out(
            *("events", "--since", str(begun), "--until", str(time.time() + 1)),
            *("--filter", "type=container", "--filter", "container=brief", "--format", "{{json .}}"),
        )
        events = [json.loads(line) for line in shown.splitlines()]
        assert [event["Action"] for event in events] == ["create", "attach", "start", "die", "destroy"]
        die = events[3]
        assert die["Type"] == "container"
        assert die["Actor"]["Attributes"] | {"execDuration": ""} == {
            "exitCode": "3",
            "image": "busybox",
            "name": "brief",
            "k": "v",
            "execDuration": "",
        }
        assert (die["status"], die["from"], die["id"]) == ("die", "busybox", die["Actor"]["ID"])
        assert die["timeNano"] // 10**9 == die["time"]
        assert die["scope"] == "local"

    def test_of_networks(self, engine: Engine) -> None:
        begun = time.time() - 1
        engine.docker("run", "--rm", "busybox", "true", check=0)
        shown = engine.out(
            *("events", "--since", str(begun), "--until", str(time.time() + 1)),
            *("--filter", "type=network", "--format", "{{.Action}} {{.Actor.Attributes.name}}"),
        )
        assert shown.splitlines()[-2:] == ["connect bridge", "disconnect bridge"]

    def test_headers_come_at_once(self, engine: Engine) -> None:
        with socket.socket(socket.AF_UNIX) as raw:
            raw.settimeout(10)
            raw.connect(str(engine.socket))
            raw.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
            assert raw.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")
            heard = threading.Thread(target=engine.docker, args=("run", "--rm", "busybox", "true"))
            heard.start()
            seen = b""
            while b'"destroy"' not in seen:
                seen += raw.recv(65536)
            heard.join()

    def test_since_after_until(self, engine: Engine) -> None:
        assert get(engine, "/events?since=2000&until=1000").status == 400

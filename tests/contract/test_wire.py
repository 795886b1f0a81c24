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
from typing import Any

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
        ("version", "text"),
        [
            ("1.12", "client version 1.12 is too old"),
            ("9.99", "client version 9.99 is too new"),
            ("1.55.1", "client version 1.55.1 is too new. Maximum supported API version is 1."),
        ],
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

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({"WorkingDir": "/a\0b"}, "WorkingDir"),
            ({"Volumes": {"/a\0b": {}}}, "Volumes"),
            ({"Cmd": ["a", "b\0"]}, "Cmd[1]"),
            ({"HostConfig": {"Binds": ["/tmp\0:/x"]}}, "HostConfig.Binds[0]"),
            ({"HostConfig": {"CgroupParent": "/a\0b"}}, "HostConfig.CgroupParent"),
            ({"HostConfig": {"Tmpfs": {"/a\0b": ""}}}, "HostConfig.Tmpfs"),
            ({"HostConfig": {"Devices": [{"PathOnHost": "/dev/null\0"}]}}, "HostConfig.Devices[0].PathOnHost"),
            ({"HostConfig": {"Mounts": [{"Type": "tmpfs", "Target": "/x\0"}]}}, "HostConfig.Mounts[0].Target"),
        ],
    )
    def test_nothing_for_the_kernel_contains_nul(self, havred: Engine, body: dict[str, Any], field: str) -> None:
        reply = post(havred, "/containers/create", {"Image": "busybox", "Cmd": ["true"], **body})
        assert reply.status == 400
        assert reply.message.startswith(field)
        assert "NUL" in reply.message

    @pytest.mark.parametrize(
        ("profile", "text"),
        [
            ("[" * 100_000, "nested too deeply"),
            ('{"a":' * 100_000, "nested too deeply"),
            ("{bad", "invalid character 'b' looking for beginning of object key string"),
            ("[]", "an object is expected"),
            (
                '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"a","names":["b"],"action":"SCMP_ACT_ERRNO"}]}',
                "both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'",
            ),
        ],
    )
    def test_a_seccomp_profile_that_cannot_be_is_a_bad_request(self, havred: Engine, profile: str, text: str) -> None:
        body = {"Image": "busybox", "HostConfig": {"SecurityOpt": [f"seccomp={profile}"]}}
        reply = post(havred, "/containers/create", body)
        assert reply.status == 400
        assert text in reply.message

    @pytest.mark.parametrize("target", ["/containers/create", "/networks/create", "/volumes/create"])
    def test_bodies_nested_deeply_are_bad_requests(self, engine: Engine, target: str) -> None:
        assert post(engine, target, b'{"Labels":' + b"[" * 100_000).status == 400

    def test_labels_are_data_and_may_contain_anything(self, engine: Engine) -> None:
        made = post(engine, "/containers/create", {"Image": "busybox", "Labels": {"a\0b": "c\0d"}})
        assert get(engine, f"/containers/{made.json['Id']}/json").json["Config"]["Labels"] == {"a\0b": "c\0d"}

    @pytest.mark.parametrize("target", ["/containers/idle/archive?path=/a%00b", "/build?dockerfile=a%00b"])
    def test_queries_contain_no_nul_either(self, havred: Engine, target: str) -> None:
        reply = ask(havred.socket, "POST" if target.startswith("/build") else "GET", target)
        assert (reply.status, reply.message) == (400, "invalid query: it contains a NUL character")

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

    def test_nothing_to_make_a_container_of_is_400(self, engine: Engine) -> None:
        for body in ({}, {"HostConfig": {"Privileged": True}}, {"Novelty": 1}):
            reply = post(engine, "/containers/create", body)
            assert (reply.status, reply.message) == (400, "config cannot be empty in order to create a container")
        for body in ({"Image": ""}, {"hostname": "x"}):
            reply = post(engine, "/containers/create", body)
            assert (reply.status, reply.message) == (400, "no command specified")

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

    @pytest.mark.parametrize(
        ("command", "code", "text"),
        [
            ("nosuch", 127, 'exec: "nosuch": executable file not found in $PATH'),
            ("/nosuch", 127, 'exec: "/nosuch": stat /nosuch: no such file or directory'),
            ("", 127, "executable file not found in $PATH"),
            ("/etc/passwd/x", 127, "Are you trying to mount a directory onto a file"),
            ("/etc/passwd", 126, 'exec: "/etc/passwd": permission denied'),
            ("/etc", 126, "is a directory"),
        ],
    )
    def test_a_command_that_cannot_be_run_is_a_bad_request(
        self, engine: Engine, command: str, code: int, text: str
    ) -> None:
        made = post(engine, "/containers/create", {"Image": "busybox", "Cmd": [command]})
        reply = post(engine, f"/containers/{made.json['Id']}/start")
        assert reply.status == 400
        assert text in reply.message
        state = get(engine, f"/containers/{made.json['Id']}/json").json["State"]
        assert (state["Status"], state["ExitCode"], state["Error"]) == ("created", code, reply.message)

    @pytest.mark.parametrize(
        ("target", "status", "text"),
        [
            ("/containers/nobody/kill?signal=FOO", 400, "cannot kill container: nobody: invalid signal: FOO"),
            ("/containers/nobody/kill?signal=-1", 400, "the linux daemon does not support signal -1"),
            ("/containers/nobody/kill?signal=64", 404, "cannot kill container: nobody: No such container: nobody"),
            ("/containers/nobody/rename?name=", 400, "Neither old nor new names may be empty"),
        ],
    )
    def test_what_is_malformed_is_told_before_what_is_missing(
        self, engine: Engine, target: str, status: int, text: str
    ) -> None:
        reply = post(engine, target)
        assert reply.status == status
        assert text in reply.message

    def test_a_tag_without_a_name_is_nothing_to_do(self, engine: Engine) -> None:
        for target in ("/images/busybox/tag?repo=", "/images/nothing/tag?tag=x"):
            assert post(engine, target).status == 200

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


class TestEndpoints:
    """What is asked of a network is checked when a container is created."""

    MAC = "02:42:ac:11:00:99"

    @pytest.mark.parametrize(
        ("network", "asked", "texts"),
        [
            ("bridge", {"MacAddress": "zz"}, ["invalid MAC address zz"]),
            ("none", {"MacAddress": "zz"}, ["invalid MAC address zz"]),
            ("nowhere", {"MacAddress": "zz"}, ["invalid MAC address zz"]),
            (
                "bridge",
                {"IPAMConfig": {"IPv4Address": "999.1.1.1"}},
                ["* user specified IP address is supported on user", "* invalid IPv4 address: 999.1.1.1"],
            ),
            ("nowhere", {"IPAMConfig": {"IPv4Address": "999.1.1.1"}}, ["\ninvalid IPv4 address: 999.1.1.1"]),
            ("nowhere", {"IPAMConfig": {"IPv6Address": "10.0.0.1"}}, ["invalid IPv6 address: 10.0.0.1"]),
            ("nowhere", {"IPAMConfig": {"LinkLocalIPs": ["zz"]}}, ["invalid link-local IP address: zz"]),
            ("bridge", {"Aliases": ["x"]}, ["network-scoped alias is supported only for containers in user defined"]),
            ("nowhere", {"IPAMConfig": {"IPv6Address": "::ffff:10.0.0.1"}}, ["invalid IPv6 address: ::ffff:10.0.0.1"]),
            ("own", {"IPAMConfig": {"IPv4Address": "10.78.0.9"}}, ["no configured subnet or ip-range contain the IP"]),
        ],
    )
    def test_what_is_refused(self, engine: Engine, network: str, asked: dict[str, Any], texts: list[str]) -> None:
        if network == "own":
            engine.out("network", "create", "--subnet", "10.77.0.0/24", "own")
        body = {"Image": "busybox", "HostConfig": {"NetworkMode": network}}
        reply = post(engine, "/containers/create", body | {"NetworkingConfig": {"EndpointsConfig": {network: asked}}})
        assert reply.status == 400
        assert reply.message.startswith(f"invalid config for network {network}: invalid ")
        assert all(text in reply.message for text in texts), reply.message
        ask(engine.socket, "DELETE", "/networks/own")
        assert get(engine, "/containers/json?all=1").json == []

    def test_a_mac_address_is_the_main_networks(self, engine: Engine) -> None:
        asked = {"NetworkingConfig": {"EndpointsConfig": {"bridge": {"MacAddress": self.MAC}}}}
        for body in (asked, {"MacAddress": self.MAC}):
            made = post(engine, "/v1.45/containers/create", {"Image": "busybox", **body}).json
            assert ("deprecated" in "".join(made["Warnings"])) == ("MacAddress" in body)
            shown = get(engine, f"/v1.45/containers/{made['Id']}/json").json
            assert shown["Config"]["MacAddress"] == self.MAC
            assert shown["NetworkSettings"]["Networks"]["bridge"]["MacAddress"] == self.MAC
        old = post(engine, "/v1.43/containers/create", {"Image": "busybox", "MacAddress": self.MAC}).json
        assert old["Warnings"] == []
        none = {"Image": "busybox", "MacAddress": "zz", "HostConfig": {"NetworkMode": "none"}}
        made = post(engine, "/v1.45/containers/create", none).json
        assert "MacAddress" not in get(engine, f"/v1.45/containers/{made['Id']}/json").json["Config"]

    def test_two_mac_addresses_of_one_network(self, engine: Engine) -> None:
        asked = {"EndpointsConfig": {"bridge": {"MacAddress": "02:42:ac:11:00:98"}}}
        body = {"Image": "busybox", "MacAddress": self.MAC, "NetworkingConfig": asked}
        reply = post(engine, "/v1.45/containers/create", body)
        assert reply.status == 400
        assert "the container-wide MAC address must match the endpoint-specific MAC address" in reply.message

    def test_other_spellings_of_a_mac_address(self, engine: Engine) -> None:
        script = "cat /sys/class/net/eth0/address"
        for written in ("02-42-AC-11-00-96", "0242.ac11.0096"):
            body = {"Image": "busybox", "MacAddress": written, "Cmd": ["sh", "-c", script]}
            made = post(engine, "/v1.45/containers/create", body).json
            assert engine.out("start", "-a", made["Id"]) == "02:42:ac:11:00:96"


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

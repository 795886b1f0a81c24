"""Plans by value: what is wanted and what is there to steps, without an engine."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

from havre.compose import labels as label
from havre.compose.dotenv import parse_env
from havre.compose.down import DownOptions, plan_down, plan_stop, project_of
from havre.compose.execute import Layers
from havre.compose.images import ImageOptions, plan_images
from havre.compose.labels import container_labels
from havre.compose.load import Loader, Source
from havre.compose.plan import FORCE, NEVER, UpOptions, plan_up
from havre.compose.project import Project
from havre.compose.request import container_request
from havre.compose.rollout import plan_rollout
from havre.compose.state import Container, State
from havre.compose.steps import Step
from havre.compose.viz import render_dot
from havre.compose.watch import Tree, pack, rules_of
from havre.compose.watched import Folders
from havre.errors import HavreError
from havre.golang.units import format_duration, parse_duration, parse_size

BASIC = """
services:
  db: {image: i, networks: [n], volumes: ["vol:/v"], healthcheck: {test: "true"}}
  web: {image: i, networks: [n], depends_on: {db: {condition: service_healthy}}}
networks: {n: }
volumes: {vol: }
"""
SHARING = """
services:
  a: {image: i}
  b: {image: i, network_mode: "service:a", volumes_from: [a]}
"""
IMAGE = {"Id": "sha256:1", "Config": {}}


def project(text: str) -> Project:
    return Loader(Source(("-",), "/f", "p", {}, stdin=text)).project()


def container(wanted: Project, name: str, number: int = 1, **more: Any) -> Container:
    service = wanted.services[name]
    labels = container_labels(wanted, name, service, number, IMAGE["Id"]) | more.pop("labels", {})
    called = more.pop("called", f"p-{name}-{number}")
    row = {"Id": f"{name}{number}".ljust(64, "0"), "Names": [f"/{called}"], "State": "running", "Labels": labels}
    return Container({**row, **more})


def there(wanted: Project, *containers: Container) -> State:
    networks = {n["name"]: {"Id": "1", "Name": n["name"], "Labels": {label.PROJECT: "p"}}
                for n in wanted.networks.values()}  # fmt: skip
    volumes = {v["name"]: {"Name": v["name"], "Labels": {label.PROJECT: "p"}} for v in wanted.volumes.values()}
    return State(containers, networks, volumes, {"i": IMAGE})


def keys(steps: list[Step]) -> list[str]:
    return [step.key for step in steps if step.action is not None]


def after(steps: list[Step], key: str) -> set[str]:
    return set(next(step for step in steps if step.key == key).after)


def test_a_first_up_makes_everything_behind_what_it_needs() -> None:
    wanted = project(BASIC)
    steps = plan_up(wanted, State(images={"i": IMAGE}), UpOptions())
    assert keys(steps) == [
        "network n", "volume vol", "create p-db-1", "create p-web-1", "start p-db-1", "await db service_healthy True",
        "start p-web-1",
    ]  # fmt: skip
    assert after(steps, "create p-db-1") == {"network n", "volume vol"}
    assert after(steps, "create p-web-1") == {"network n"}
    assert after(steps, "await db service_healthy True") == {"start p-db-1"}
    assert after(steps, "start p-web-1") == {"create p-web-1", "await db service_healthy True"}


def test_nothing_is_done_to_what_is_right() -> None:
    wanted = project(BASIC.replace("service_healthy", "service_started"))
    state = there(wanted, container(wanted, "db"), container(wanted, "web"))
    assert keys(plan_up(wanted, state, UpOptions())) == []
    stopped = there(wanted, container(wanted, "db", State="exited"), container(wanted, "web"))
    assert keys(plan_up(wanted, stopped, UpOptions())) == ["start p-db-1"]


def test_a_changed_service_is_replaced_and_so_is_what_depends_on_it() -> None:
    old, wanted = project(BASIC), project(BASIC.replace("db: {", "db: {tty: true, ", 1))
    state = there(wanted, container(old, "db"), container(old, "web"))
    steps = plan_up(wanted, state, UpOptions())
    short = "db1000000000"
    assert keys(steps)[:4] == ["create p-db-1", "stop p-db-1", "remove p-db-1", "rename p-db-1"]
    assert [after(steps, key) for key in keys(steps)[1:4]] == [{"create p-db-1"}, {"stop p-db-1"}, {"remove p-db-1"}]
    assert next(step for step in steps if step.key == "create p-db-1").action.name == f"{short}_p-db-1"  # type: ignore[union-attr]
    assert "create p-web-1" in keys(steps)
    assert keys(plan_up(wanted, state, UpOptions(recreate=NEVER, recreate_others=NEVER))) == [
        "await db service_healthy True"
    ]


def test_another_image_or_force_replaces() -> None:
    wanted = project("services: {a: {image: i}}")
    state = there(wanted, container(wanted, "a", labels={label.IMAGE: "sha256:other"}))
    assert "create p-a-1" in keys(plan_up(wanted, state, UpOptions()))
    state = there(wanted, container(wanted, "a"))
    assert "create p-a-1" in keys(plan_up(wanted, state, UpOptions(recreate=FORCE)))
    assert keys(plan_up(wanted, state, UpOptions(recreate=FORCE, targets=("b",)))) == []


def test_what_shares_with_a_new_container_is_new() -> None:
    wanted = project(SHARING)
    steps = plan_up(wanted, there(wanted, container(wanted, "b")), UpOptions())
    assert keys(steps)[:2] == ["create p-a-1", "create p-b-1"]
    assert after(steps, "create p-b-1") >= {"create p-a-1"}


def test_scaling_keeps_the_lowest_numbers() -> None:
    wanted = project("services: {a: {image: i, scale: 1}}")
    state = there(wanted, *(container(wanted, "a", number) for number in (1, 2, 3)))
    removed = [step.subject for step in plan_up(wanted, state, UpOptions()) if step.key.startswith("remove")]
    assert removed == ["Container p-a-2", "Container p-a-3"]
    more = project("services: {a: {image: i, scale: 5}}")
    assert [key for key in keys(plan_up(more, state, UpOptions())) if key.startswith("create")] == [
        "create p-a-4", "create p-a-5",
    ]  # fmt: skip


def test_a_rename_that_was_interrupted_is_done() -> None:
    wanted = project("services: {a: {image: i}}")
    state = there(wanted, container(wanted, "a", called="0123456789ab_p-a-1", State="created"))
    steps = plan_up(wanted, state, UpOptions())
    assert [key.split()[0] for key in keys(steps)] == ["rename", "start"]
    assert after(steps, "start p-a-1") == {keys(steps)[0]}


def test_a_replacement_whose_original_is_still_there_goes() -> None:
    wanted = project("services: {a: {image: i, scale: 2}}")
    old = container(wanted, "a", Id="b" * 64, labels={label.CONFIG_HASH: "old"})
    twin = container(wanted, "a", Id="c" * 64, called="bbbbbbbbbbbb_p-a-1", labels={label.REPLACES: "b" * 64})
    second = container(wanted, "a", 2, called="dddddddddddd_p-a-2", labels={label.REPLACES: "d" * 64})
    made = keys(plan_up(wanted, there(wanted, old, twin, second), UpOptions(start=False)))
    assert f"remove {twin.name}" in made or f"remove {twin.id}" in made, made
    assert {"create p-a-1", "rename p-a-1", f"rename {second.id}"} <= {*made}, made


def test_waiting_and_orphans() -> None:
    wanted = project(BASIC)
    other = container(wanted, "db", called="p-gone-1", labels={label.SERVICE: "gone"})
    steps = plan_up(wanted, there(wanted, other), UpOptions(wait=True, remove_orphans=True))
    assert {"await web running_or_healthy True", "await db running_or_healthy True"} <= set(keys(steps))
    assert any(step.subject == "Container p-gone-1" and step.done == "Removed" for step in steps)


def test_what_cannot_be_is_refused() -> None:
    for text, reason in (
        ("services: {a: {image: i, networks: [n]}}\nnetworks: {n: {external: true}}", "declared as external"),
        ("services: {a: {image: i, volumes: ['vol:/v']}}\nvolumes: {vol: {external: true}}", 'external volume "vol"'),
    ):
        with pytest.raises(HavreError, match=reason):
            plan_up(project(text), State(images={"i": IMAGE}), UpOptions())


def test_down_goes_backwards_with_or_without_files() -> None:
    wanted = project(BASIC)
    state = there(wanted, container(wanted, "db"), container(wanted, "web"))
    for known in (wanted, project_of("p", state)):
        steps = plan_down(known, state, DownOptions(volumes=True, images=("i",)))
        stop_db = f"stop {state.containers[0].id}"
        assert after(steps, stop_db) == {f"remove {state.containers[1].id}"}
        assert [step.subject for step in steps if step.subject.split()[0] in ("Image", "Volume")] == [
            "Image i", *(["Volume p_vol"] if known is wanted else []),
        ]  # fmt: skip
    assert [step.subject for step in plan_stop(wanted, state, ["db"], 3)] == ["Container p-db-1"]


def test_images_by_policy() -> None:
    wanted = project("services: {a: {image: i}, b: {build: .}, c: {image: j, pull_policy: never}, d: {image: i}}")
    assert keys(plan_images(wanted, {}, ImageOptions())) == ["pull i", "build p-b"]
    assert keys(plan_images(wanted, {"i": {}, "p-b": {}}, ImageOptions())) == []
    assert keys(plan_images(wanted, {"i": {}, "p-b": {}}, ImageOptions(build=True))) == ["build p-b"]
    assert keys(plan_images(wanted, {"i": {}, "p-b": {}}, ImageOptions(pull="always", no_build=True))) == [
        "pull i", "pull p-b", "pull j",
    ]  # fmt: skip
    with pytest.raises(HavreError, match="--pull"):
        plan_images(wanted, {}, ImageOptions(pull="often"))


def test_what_an_image_is_made_from_is_built_before_it() -> None:
    text = "services: {app: {build: {context: ., additional_contexts: {x: 'service:base'}}}, base: {build: .}}"
    wanted = project(text)
    steps = plan_images(wanted, {"p-base": {}}, ImageOptions())
    assert keys(steps) == ["build p-app"]
    assert after(plan_images(wanted, {"p-base": {}}, ImageOptions(build=True)), "build p-app") == {"build p-base"}
    assert keys(plan_images(wanted.selecting(["app"]), {}, ImageOptions())) == ["build p-base", "build p-app"]
    circle = project(text.replace("base: {build: .}", "base: {build: {additional_contexts: {x: 'service:app'}}}"))
    with pytest.raises(HavreError, match="builds wait for each other: app -> base -> app"):
        plan_images(circle, {}, ImageOptions())


def test_a_request_has_what_the_service_says() -> None:
    wanted = project("""
services:
  a:
    image: i
    ports: ["127.0.0.1:8080:80/udp"]
    cpus: 0.5
    ulimits: {nofile: {soft: 1, hard: 2}}
    devices: ["/dev/a:/dev/b:r"]
    restart: on-failure:3
    volumes: ["./x:/x:ro", {type: bind, source: /y, target: /y}, {type: tmpfs, target: /t, tmpfs: {size: 1k}}]
    stop_grace_period: 1m
    blkio_config: {device_read_bps: [{path: /dev/x, rate: 1m}]}
    networks: {n: {priority: 1}, m: {priority: 5, aliases: [z], ipv4_address: 10.0.0.2}}
networks: {n: , m: }
""")
    body = container_request(wanted, "a", wanted.services["a"], 1, {}, IMAGE)
    host = body["HostConfig"]
    assert host["Binds"] == ["/f/x:/x:ro"]
    assert [mount["Type"] for mount in host["Mounts"]] == ["tmpfs", "bind"]
    assert host["NanoCpus"] == 500_000_000
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    assert host["PortBindings"] == {"80/udp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]}
    assert host["Devices"] == [{"PathOnHost": "/dev/a", "PathInContainer": "/dev/b", "CgroupPermissions": "r"}]
    assert host["BlkioDeviceReadBps"] == [{"Path": "/dev/x", "Rate": 1 << 20}]
    assert body["StopTimeout"] == 60
    assert host["NetworkMode"] == "p_m"
    assert body["NetworkingConfig"]["EndpointsConfig"]["p_m"] == {
        "Aliases": ["p-a-1", "a", "z"], "IPAMConfig": {"IPv4Address": "10.0.0.2"},
    }  # fmt: skip


def test_env_files() -> None:
    text = 'export A=1 # c\nB=\'$A\'\nC="${A}\\n"\nD: x\nE\nF=${E:-none}\n\n# c\nG="two\nlines"\nH=it\'s'
    assert parse_env(text, {"E": "outer"}.get) == {
        "A": "1", "B": "$A", "C": "1\n", "D": "x", "E": "outer", "F": "outer", "G": "two\nlines", "H": "it's",
    }  # fmt: skip
    for wrong, reason in (("A B=1", "space"), ("A='x", "unterminated"), ("A!=1", "unexpected character '!'")):
        with pytest.raises(ValueError, match=f"line 1: .*{reason}"):
            parse_env(wrong, {}.get)


def test_units() -> None:
    shown = {"90s": "1m30s", "1h": "1h0m0s", "1.5s": "1.5s", "2ms": "2ms", "-3us": "-3µs", "0": "0s"}
    assert {text: format_duration(parse_duration(text)) for text in shown} == shown
    assert [parse_size(text) for text in ("1", "2k", "1.5 MiB", "1gb")] == [1, 2048, 1572864, 1 << 30]


def test_the_graph_in_dot() -> None:
    text = render_dot(project(BASIC), image=True, networks=True, ports=True, indent="  ")
    assert '"web" -> "db" [style=solid, label="healthy"];' in text
    assert 'label="db\\ni\\nnetwork n"' in text


def test_what_watch_sees(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_text("1")
    (tmp_path / "a" / "y.tmp").write_text("1")
    wanted = project(f"""
services:
  s: {{build: {tmp_path}, develop: {{watch: [{{path: {tmp_path}, action: sync, target: /t/, ignore: ["**/*.tmp"]}}]}}}}
""")
    (rule,) = rules_of(wanted)
    inotify = Folders()
    tree = Tree(rule, inotify)
    assert tree.everything().changed == ["a/x"]
    (tmp_path / "a" / "x").unlink()
    (tmp_path / "z").write_text("2")
    changes = tree.update(inotify.wait(5))
    assert (changes.changed, changes.removed) == (["z"], ["a/x"])
    with tarfile.open(fileobj=io.BytesIO(pack([changes]))) as tar:
        assert tar.getnames() == ["t", "t/z"]
    (tmp_path / "a" / "deep").mkdir()
    (tmp_path / "a" / "deep" / "y").write_text("3")
    assert tree.update(inotify.wait(5)).changed == ["a/deep/y"]
    (tmp_path / "a" / "deep" / "y").write_text("of another size")
    assert tree.update(inotify.wait(5)).changed == ["a/deep/y"], "a new folder is watched, too"
    shutil.rmtree(tmp_path)
    assert tree.update(inotify.wait(5)).removed == ["a/deep/y", "z"]
    (tmp_path / "b").mkdir(parents=True)
    (tmp_path / "b" / "again").write_text("4")
    assert tree.update(inotify.wait(5)).changed == ["b/again"]
    inotify.close()


def test_what_an_interrupted_rollout_left_is_replaced_like_what_it_was_to_follow() -> None:
    old, wanted = (
        project("services: {a: {image: i}}"),
        project("services: {a: {image: i, tty: true, ports: ['80:80']}}"),
    )
    first = container(old, "a")
    left = container(wanted, "a", 2, labels={label.FOLLOWS: first.id})
    steps = plan_up(wanted, there(wanted, first, left), UpOptions())
    assert f"remove {left.id}" in keys(steps)
    assert after(steps, "create p-a-1") == {f"remove {left.id}"}, "it may hold the port"
    (again,) = plan_rollout(wanted, there(wanted, first, left), "a", None, "-", hands_over=True)
    assert keys([*again.forward])[0] == "create p-a-3"
    assert {f"remove {first.id}", f"remove {left.id}"} <= set(keys([*again.retire]))
    done = container(wanted, "a", 2, labels={label.FOLLOWS: first.id})
    assert not plan_rollout(wanted, there(wanted, done), "a", None, "-", hands_over=True)
    assert keys(plan_up(wanted, there(wanted, done), UpOptions())) == []


def test_layers_on_their_way_are_told_until_they_are_there() -> None:
    layers = Layers()
    assert layers.update({"status": "Pulling from library/i", "id": "latest"}) == []
    assert layers.update({"status": "Pulling fs layer", "id": "a1", "progressDetail": {}}) == ["a1 Pulling fs layer"]
    loading = {"status": "Downloading", "id": "a1", "progressDetail": {"current": 1_500_000, "total": 4_000_000}}
    assert layers.update(loading) == ["a1 Downloading 1.5 MB of 4.0 MB"]
    assert layers.update({"status": "Pull complete", "id": "a1", "progressDetail": {}}) == []

"""Volumes in containers: parts of them, copying, sharing, what is refused; the same on both engines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.engines import Engine
from support.processes import read
from support.together import at_once, create, post

RUN = ("run", "--rm")


@pytest.fixture
def volume(engine: Engine) -> Iterator[str]:
    """A volume with a directory, a file, a link within it and links out of it."""
    engine.out("volume", "create", "parts")
    script = "mkdir -p /v/sub/deep; echo hi > /v/sub/f; ln -s / /v/out; ln -s sub /v/in; echo x > /v/file"
    engine.out(*RUN, "-v", "parts:/v", "busybox", "sh", "-c", script)
    yield "parts"
    engine.docker("volume", "rm", "parts", check=0)


def test_parts(engine: Engine, volume: str) -> None:
    def shown(subpath: str, *command: str) -> str:
        mount = f"type=volume,src={volume},dst=/m/x,volume-subpath={subpath}"
        return engine.docker(*RUN, "--mount", mount, "busybox", *command).stdout.strip()

    assert shown("sub", "ls", "/m/x").split() == ["deep", "f"]
    assert shown("in", "ls", "/m/x").split() == ["deep", "f"]
    assert shown("file", "cat", "/m/x") == "x"
    assert shown("sub", "sh", "-c", "echo more > /m/x/g && cat /m/x/g") == "more"
    for bad in ("out/etc", "nope", "../parts", "/sub"):
        mount = f"type=volume,src={volume},dst=/m,volume-subpath={bad}"
        done = engine.docker(*RUN, "--mount", mount, "busybox", "ls", "/m")
        assert (done.returncode != 0, done.stdout) == (True, "")
        assert bad != "out/etc" or "path concatenation escapes the base directory" in done.stderr
    engine.out("run", "-d", "--name", "holder", "--mount", f"type=volume,src={volume},dst=/m,volume-subpath=sub",
               "busybox", "sleep", "1000")  # fmt: skip
    assert "volume is in use" in engine.docker("volume", "rm", volume, check=1).stderr
    engine.docker("rm", "-f", "holder", check=0)


def test_a_part_begins_with_what_the_image_has(engine: Engine, volume: str) -> None:
    assert engine.out(*RUN, "-v", f"{volume}:/v", "busybox", "mkdir", "/v/bin") == ""
    mount = f"type=volume,src={volume},dst=/bin,volume-subpath=bin"
    assert engine.out(*RUN, "--mount", mount, "busybox", "ls", "/bin/busybox") == "/bin/busybox"
    assert "busybox" in engine.out(*RUN, "-v", f"{volume}:/v", "busybox", "ls", "/v/bin")


def test_sharing_and_copying(engine: Engine) -> None:
    engine.out("create", "--name", "first", "-v", "/bin", "-v", "shared:/data:ro", "busybox", "true")
    assert engine.out(*RUN, "--volumes-from", "first", "busybox", "sh", "-c", "touch /data/x; ls /bin/busybox") == (
        "/bin/busybox"
    )
    both = engine.out(*RUN, "-v", "shared:/data", "busybox", "sh", "-c", "ls /data; echo written > /data/y")
    assert both == ""
    assert engine.out(*RUN, "--volumes-from", "first:ro", "busybox", "cat", "/data/y") == "written"
    empty = "type=volume,src=plain,dst=/bin2,volume-nocopy"
    assert engine.out(*RUN, "--mount", empty, "busybox", "ls", "/bin2") == ""
    assert "No such container: nope" in engine.docker(*RUN, "--volumes-from", "nope", "busybox", "true").stderr
    bad = engine.docker(*RUN, "--volumes-from", "first:rshared", "busybox", "true", check=125)
    assert "invalid mode: rshared" in bad.stderr
    engine.docker("rm", "-v", "first", check=0)
    engine.docker("volume", "rm", "shared", "plain", check=0)


def test_what_outlives_the_first_process_is_gone_before_the_volume(engine: Engine, tmp_path: Path) -> None:
    """In the host's PID namespace the kernel does not end it."""
    writer = "i=0; while true; do mkdir /v/$i; i=$((i+1)); done"
    script = f"sh -c '{writer}' & echo $! > /shared/pid; until test -d /v/99; do :; done"
    host = {"AutoRemove": True, "PidMode": "host", "Binds": [f"{tmp_path}:/shared"]}
    id = create(engine, "brief", Cmd=["sh", "-c", script], Volumes={"/v": {}}, HostConfig=host)
    at_once(post(engine, f"/containers/{id}/wait?condition=removed"), post(engine, f"/containers/{id}/start"))
    pid = (tmp_path / "pid").read_text().strip()
    assert read(Path(f"/proc/{pid}/cmdline")) == "", "it runs on"
    assert engine.out("volume", "ls", "-q") == ""


def test_listing_updating_and_pruning(engine: Engine) -> None:
    engine.docker("volume", "prune", "-a", "-f", check=0)
    engine.out("volume", "create", "--label", "kind=a", "named")
    anonymous = engine.out("volume", "create")
    engine.out("run", "-v", "named:/v", "--name", "user", "busybox", "sh", "-c", "echo 0123456789 > /v/file")
    listed = {
        filter: set(engine.out("volume", "ls", "-q", "--filter", filter).split())
        for filter in ("dangling=true", "dangling=false", "label=kind=a", "name=name", "driver=local")
    }
    assert listed == {
        "dangling=true": {anonymous},
        "dangling=false": {"named"},
        "label=kind=a": {"named"},
        "name=name": {"named"},
        "driver=local": {"named", anonymous},
    }
    usage = json.loads(engine.out("system", "df", "-v", "--format", "{{json .Volumes}}"))
    assert {each["Name"]: each["Links"] for each in usage} == {"named": "1", anonymous: "0"}
    assert "Can only update cluster volumes" in engine.docker("volume", "update", "named", check=1).stderr
    assert anonymous in engine.out("volume", "prune", "-f")
    assert engine.out("volume", "prune", "-af") == "Total reclaimed space: 0B"
    engine.docker("rm", "user", check=0)
    kept = engine.out("volume", "prune", "-af", "--filter", "label!=kind=a")
    assert kept == "Total reclaimed space: 0B"
    assert engine.out("volume", "prune", "-af") == "Deleted Volumes:\nnamed\n\nTotal reclaimed space: 11B"
    assert "no such volume" in engine.docker("volume", "inspect", "named", check=1).stderr


def test_df_tells_what_prune_frees(engine: Engine) -> None:
    sizes = {"/big": 300_000, "/v/f": 123_000, "/anon/f": 77_000}
    fill = "; ".join(f"head -c {size} /dev/zero > {path}" for path, size in sizes.items())
    engine.out("run", "--name", "used", "-v", "kept:/v", "-v", "/anon", "busybox", "sh", "-c", fill)
    client = engine.sdk()
    usage = client.df()
    containers = sum(each.get("SizeRw", 0) for each in usage["Containers"])
    volumes = {each["Name"]: each["UsageData"]["Size"] for each in usage["Volumes"]}
    assert containers == 300_000
    assert client.containers.prune()["SpaceReclaimed"] == containers
    pruned = client.volumes.prune(filters={"all": True})
    assert set(pruned["VolumesDeleted"]) == set(volumes)
    assert pruned["SpaceReclaimed"] == sum(volumes.values())
    client.close()
    engine.out("network", "create", "idle")
    engine.out("create", "--name", "stopped", "-v", "kept:/v", "busybox", "true")
    told = engine.out("system", "prune", "-f", "--filter", "label!=none")
    assert "Deleted Containers:" in told
    assert "Deleted Networks:\nidle\n" in told
    assert "kept" in engine.out("volume", "ls", "-q").split()
    asked = engine.docker("system", "prune", "--volumes", stdin="n\n").stdout
    assert "  - all anonymous volumes not used by at least one container\n" in asked
    engine.docker("volume", "rm", "kept", check=0)

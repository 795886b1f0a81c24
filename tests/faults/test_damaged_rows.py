"""One row of the database that cannot be read: the daemon starts, every list works, and the row can be removed."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

from havre.oci.digest import digest_of, hex_of
from support.engines import Engine
from support.imagery import archive as image_archive
from support.imagery import config_of, layer_tar
from support.raw import ask
from support.waiting import until


def change(
    engine: Engine, table: str, key: str, value: bytes | None = None, inside: str = "", **fields: object
) -> None:
    """Replace a row, or some fields of it or of its part `inside`, while no daemon runs."""
    with sqlite3.connect(engine.root / "data" / "havre.db") as db:
        (before,) = db.execute(f"SELECT value FROM {table} WHERE key = ?", (key,)).fetchone()
        row = json.loads(before)
        (row[inside] if inside else row).update(fields)
        after = json.dumps(row).encode() if value is None else value
        db.execute(f"UPDATE {table} SET value = ? WHERE key = ?", (after, key))
    db.close()


def works(engine: Engine) -> None:
    """Every list and what is counted."""
    for words in (("ps", "-a"), ("images",), ("volume", "ls"), ("network", "ls"), ("system", "df", "-v"), ("info",)):
        engine.docker(*words, check=0)
    assert engine.out("run", "--rm", "busybox", "echo", "works") == "works"
    engine.docker("image", "prune", "-f", check=0)
    engine.docker("volume", "prune", "-f", check=0)
    engine.docker("network", "prune", "-f", check=0)
    assert "Traceback" not in engine.log.read_text()


def test_a_containers_row(havred: Engine) -> None:
    odd = havred.out("create", "--name", "odd", "-v", "kept:/v", "busybox", "true")
    lost = havred.out("create", "--name", "lost", "busybox", "true")
    runs = havred.out("run", "-d", "--name", "runs", "--restart", "always", "busybox", "sleep", "1000")
    pid = havred.out("inspect", "-f", "{{.State.Pid}}", "runs")
    address = havred.out("inspect", "-f", "{{.NetworkSettings.Networks.bridge.IPAddress}}", "runs")
    havred.docker("cp", "/etc/hostname", f"{odd}:/mine", check=0)
    havred.stop()
    change(havred, "containers", odd, inside="Spec", HostConfig=5)
    change(havred, "containers", lost, b"\x00not JSON")
    change(havred, "containers", runs, RestartCount="many")
    havred.start()
    works(havred)
    rows = havred.out("ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.Names}} {{.State}}").splitlines()
    assert sorted(rows) == sorted([f"{odd} odd exited", f"{lost} {lost[:12]} exited", f"{runs} runs running"])
    assert "damaged" in havred.out("inspect", "-f", "{{.State.Error}}", odd)
    refused = havred.docker("start", "odd", check=1)
    assert "damaged" in refused.stderr
    # What runs is left running, with its network.
    assert havred.out("inspect", "-f", "{{.State.Pid}}", "runs") == pid
    assert address in havred.out("exec", "runs", "ip", "address")
    havred.docker("run", "--rm", "busybox", "ping", "-c", "1", "-W", "5", address, check=0)
    assert "damaged" in havred.docker("update", "--memory", "64m", "runs", check=1).stderr
    havred.docker("stop", "-t", "1", "runs", check=0)
    assert havred.out("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "runs") == "exited 137"
    assert "damaged" in havred.docker("start", "runs", check=1).stderr
    # What it holds can be saved: it is not swept away with what nobody knows.
    havred.docker("cp", f"{odd}:/mine", str(havred.root / "mine"), check=0)
    assert havred.docker("volume", "rm", "kept").returncode == 1
    havred.stop()
    havred.start()
    havred.docker("rm", "odd", lost, "runs", check=0)
    havred.docker("volume", "rm", "kept", check=0)
    havred.stop()
    havred.start()
    assert havred.out("ps", "-aq") == ""


def test_a_networks_row(havred: Engine) -> None:
    odd, worse = havred.out("network", "create", "odd"), havred.out("network", "create", "worse")
    (havred.out("network", "create", "good"), havred.out("create", "--network", "odd", "--name", "one", "busybox"))
    havred.stop()
    change(havred, "networks", odd, Labels=[1])
    change(havred, "networks", worse, IPAM={"Config": [{"Subnet": "nonsense"}]})
    with sqlite3.connect(havred.root / "data" / "havre.db") as db:
        host = next(key for key, value in db.execute("SELECT * FROM networks") if json.loads(value)["Name"] == "host")
    db.close()
    change(havred, "networks", host, EnableIPv6="perhaps")
    havred.start()
    works(havred)
    named = havred.out("network", "ls", "--format", "{{.Name}}").split()
    assert sorted(named) == ["bridge", "host", "none"]  # `good` was pruned
    assert f"network rm {odd}" in havred.log.read_text()
    assert "not found" in havred.docker("start", "one", check=1).stderr
    havred.docker("network", "rm", "odd", worse[:12], check=0)
    assert havred.docker("network", "rm", "odd").returncode == 1
    havred.stop()
    havred.log.write_text("")
    havred.start()
    assert "damaged" not in havred.log.read_text()


def test_a_volumes_row(havred: Engine) -> None:
    havred.docker("volume", "create", "--label", "a=b", "odd", check=0)
    havred.docker("volume", "create", "lost", check=0)
    havred.stop()
    change(havred, "volumes", "odd", Scope=5)
    change(havred, "volumes", "lost", b"[]")
    havred.start()
    works(havred)
    assert havred.out("volume", "inspect", "-f", "{{.Labels.a}}", "odd") == "b"
    havred.docker("volume", "rm", "odd", "lost", check=0)
    assert havred.out("volume", "ls", "-q") == ""


def test_rows_of_the_store(havred: Engine) -> None:
    """Of a snapshot, what the kernel can, and an image that an older version let in."""
    id = havred.out("create", "--name", "one", "busybox", "true")
    other = _malformed(havred)
    havred.stop()
    with sqlite3.connect(havred.root / "data" / "havre.db") as db:
        (abilities,) = db.execute("SELECT key FROM drivers").fetchone()
    db.close()
    change(havred, "snapshots", id, b"{")
    change(havred, "drivers", abilities, b"{")
    havred.start()
    works(havred)
    assert (havred.root / "data" / "snapshots" / id).is_dir()
    built = havred.docker("build", "-", stdin=f"FROM {other}\nRUN true\n")
    assert built.returncode != 0
    assert "malformed" in built.stderr
    havred.docker("rmi", other, check=0)
    havred.docker("rm", "one", check=0)
    assert not (havred.root / "data" / "snapshots" / id).exists()


def test_a_layers_row(havred: Engine, archive: Path) -> None:
    """It is written anew from the layer's files; where they do not help, they stay until the layer comes again."""
    layer = json.loads(havred.out("image", "inspect", "-f", "{{json .RootFS.Layers}}", "busybox"))[0]
    files = havred.root / "data" / "layers" / hex_of(layer)
    for damage in ({"value": b"{"}, {"size": 5}, {"form": "heap"}):
        havred.stop()
        change(havred, "layers", layer, **damage)  # type: ignore[arg-type]
        havred.start()
        works(havred)
    assert havred.log.read_text().count("rebuilt from its files") == 3
    havred.stop()
    (data,) = [each for each in (files / "tar", files / "tar.zst") if each.exists()]
    with data.open("r+b") as file:
        file.seek(-2000, 2)
        file.write(b"damage")
    change(havred, "layers", layer, b"{")
    for _ in range(2):
        havred.start()
        assert data.exists()
        assert havred.out("images", "--format", "{{.Repository}}") == "busybox"
        havred.docker("system", "df", check=0)
        assert f"layer {layer} is damaged" in havred.log.read_text()
        havred.stop()
    havred.start()
    havred.docker("load", "-i", str(archive), check=0)
    works(havred)
    havred.stop()
    change(havred, "layers", layer, b"{")
    with data.open("r+b") as file:
        file.seek(-2000, 2)
        file.write(b"damage")
    havred.start()
    havred.docker("rmi", "busybox", check=0)
    until(lambda: not files.exists(), "its files to be removed with the only image that needs them")


def _malformed(engine: Engine) -> str:
    """An image whose configuration is none, as versions up to 0.1 took it in; its ID."""
    layer = layer_tar("file")
    sound, bad = config_of(layer), config_of(layer, Labels={"a": 5}, Env=[1, None])
    item = [{"Config": "c.json", "RepoTags": ["bad:1"], "Layers": ["0.tar"]}]
    tar = image_archive({"0.tar": layer, "c.json": sound, "manifest.json": json.dumps(item).encode()})
    assert ask(engine.socket, "POST", "/images/load", tar, {"Content-Type": "application/x-tar"}).status == 200
    engine.stop()
    data, old, new = engine.root / "data", digest_of(sound), digest_of(bad)
    (data / "blobs" / "sha256" / hex_of(new)).write_bytes(bad)
    with sqlite3.connect(data / "havre.db") as db:
        db.execute("UPDATE images SET key = ? WHERE key = ?", (new, old))
        db.execute("UPDATE image_names SET value = replace(value, ?, ?)", (old, new))
    db.close()
    engine.start()
    return new

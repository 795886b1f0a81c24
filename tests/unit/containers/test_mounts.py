"""Mounts from the user's words, by value."""

from __future__ import annotations

import pytest

from havre.containers.container import MountOptions
from havre.containers.surroundings.mounts import (
    MountSpec,
    parse_bind,
    parse_mount,
    parse_volumes_from,
    plan_mounts,
    settle_propagation,
)
from havre.errors import InvalidInput
from havre.wire.config import BindOptions, HostConfig, Mount, TmpfsOptions


def test_bind_of_a_host_path() -> None:
    spec = parse_bind("/a//b:/c:ro")
    assert (spec.type, spec.source, spec.destination, spec.rw) == ("bind", "/a/b", "/c", False)
    assert settle_propagation(spec, ["/data"]).propagation == "rprivate"
    assert settle_propagation(spec, ["/a/b/c"]).propagation == "rslave"
    assert spec.options.create_source


def test_named_and_anonymous_volumes() -> None:
    named, anonymous = parse_bind("data:/d:nocopy"), parse_bind("/d")
    assert (named.type, named.source, named.options.no_copy) == ("volume", "data", True)
    assert anonymous.options.anonymous


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("", "invalid volume specification"),
        (":/x", "invalid volume specification"),
        ("/a:ro", "invalid volume specification"),
        ("/a:/b:ro:z", "invalid volume specification"),
        ("/a:/b:ro,rw", "invalid mode: ro,rw"),
        ("/a:/b:what", "invalid mode: what"),
        ("data:/b:copy", "invalid mode: copy"),
        ("/a:/b:default", "invalid mode: default"),
        ("/a:/b:nocopy", "'/a:/b:nocopy': invalid mount config for type \"bind\": field VolumeOptions must not be"),
        ("/a:b", "mount path must be absolute"),
        ("/a:/x/..", "destination can't be '/'"),
    ],
)
def test_malformed_binds(raw: str, text: str) -> None:
    with pytest.raises(InvalidInput, match=text.replace("(", r"\(")):
        parse_bind(raw)


@pytest.mark.parametrize(
    ("mount", "text"),
    [
        (Mount(type="what", target="/x"), "mount type unknown"),
        (Mount(type="bind", target="/x"), "field Source must not be empty"),
        (Mount(type="bind", source="x", target="/x"), "mount path must be absolute"),
        (Mount(type="volume"), "field Target must not be empty"),
        (Mount(type="tmpfs", source="x", target="/x"), "field Source must not be specified"),
        (Mount(type="volume", target="/x", bind_options=BindOptions()), "field BindOptions must not be specified"),
        (
            Mount(type="bind", source="/x", target="/x", bind_options=BindOptions(propagation="odd")),
            "invalid propagation mode: odd",
        ),
    ],
)
def test_malformed_mounts(mount: Mount, text: str) -> None:
    with pytest.raises(InvalidInput, match=text):
        parse_mount(mount)


def test_tmpfs_mount_keeps_its_options() -> None:
    spec = parse_mount(Mount(type="tmpfs", target="/t", tmpfs_options=TmpfsOptions(size_bytes=1024)))
    assert spec.options.tmpfs == TmpfsOptions(size_bytes=1024)


def test_explicit_beats_inherited_beats_image() -> None:
    host = HostConfig(binds=["mine:/a"])
    inherited = [MountSpec("volume", "/a", source="other"), MountSpec("volume", "/b", source="other2")]
    planned = {spec.destination: spec for spec in plan_mounts(host, ["/a", "/b", "/c"], inherited)}
    assert planned["/a"].source == "mine"
    assert planned["/b"].source == "other2"
    assert planned["/c"].options == MountOptions(anonymous=True)


def test_parents_come_before_children() -> None:
    host = HostConfig(binds=["x:/a/b/c", "y:/a"])
    assert [spec.destination for spec in plan_mounts(host, ["/a/b"])] == ["/a", "/a/b", "/a/b/c"]


def test_same_destination_twice() -> None:
    with pytest.raises(InvalidInput, match="Duplicate mount point: /a"):
        plan_mounts(HostConfig(binds=["x:/a", "y:/a/"]), ())


def test_tmpfs_covers_an_image_volume() -> None:
    assert plan_mounts(HostConfig(tmpfs={"/a": ""}), ["/a"]) == ()


def test_volumes_from() -> None:
    assert parse_volumes_from("c") == ("c", "rw")
    assert parse_volumes_from("c:ro") == ("c", "ro")
    with pytest.raises(InvalidInput, match="invalid mode: nocopy"):
        parse_volumes_from("c:nocopy")

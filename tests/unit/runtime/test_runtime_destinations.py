"""Links of an image on the way to mounts, devices and the working directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from havre.errors import InvalidInput
from havre.runtime.destinations import settle_destinations
from havre.runtime.plan import Bind, ContainerPlan, Device


@pytest.fixture
def image(tmp_path: Path) -> Path:
    root = tmp_path / "rootfs"
    for directory in ("dev", "proc", "sys", "etc", "outer", "there"):
        (root / directory).mkdir(parents=True)
    links = {
        "data": "/missing/dir", "up": "/../../../escape", "relative": "../made/here", "chain": "/data/deeper",
        "loop": "loop", "real": "there", "outer/inner": "/elsewhere", "into-proc": "/proc/self", "null": "/dev/null",
        "descriptor": "/proc/self/fd/7",
    }  # fmt: skip
    for name, target in links.items():
        (root / name).symlink_to(target)
    return root


def settled(image: Path, *destinations: str, cwd: str = "/", device: str = "/dev/d") -> ContainerPlan:
    mounts = tuple(Bind(source=Path("/s"), destination=destination) for destination in destinations)
    devices = (Device(path=device, type="c", major=1, minor=3),)
    return settle_destinations(
        ContainerPlan(rootfs=image, args=("true",), env=(), mounts=mounts, cwd=cwd, devices=devices)
    )


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/data", "/missing/dir"),
        ("/data/sub", "/missing/dir/sub"),
        ("/up", "/escape"),
        ("/relative", "/made/here"),
        ("/chain", "/missing/dir/deeper"),
        ("/real/x", "/there/x"),
        ("/null", "/dev/null"),
        ("/plain/./path", "/plain/./path"),
    ],
)
def test_places_that_links_lead_to(image: Path, path: str, place: str) -> None:
    assert settled(image, path).mounts[0].destination == place
    assert settled(image, cwd=path).cwd == place
    assert settled(image, device=path).devices[0].path == place


def test_what_is_mounted_hides_the_links_below(image: Path) -> None:
    plan = settled(image, "/outer/inner/x", "/outer", cwd="/outer/inner")
    assert [mount.destination for mount in plan.mounts] == ["/outer", "/outer/inner/x"]
    assert plan.cwd == "/outer/inner"
    plan = settled(image, "/data/a/b", "/missing/dir")
    assert [mount.destination for mount in plan.mounts] == ["/missing/dir", "/missing/dir/a/b"]


@pytest.mark.parametrize("path", ["/into-proc", "/into-proc/x", "/proc", "/there/../proc/x"])
def test_nothing_is_mounted_in_proc(image: Path, path: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be mounted because it is inside /proc"):
        settled(image, path)


def test_loops(image: Path) -> None:
    for loop in ({"cwd": "/loop/x"}, {"device": "/loop"}):
        with pytest.raises(InvalidInput, match="too many links in /loop"):
            settled(image, **loop)

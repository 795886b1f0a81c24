"""When a container's /dev/null is surely the one that the OCI runtime makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from havre.runtime.null import is_own
from havre.runtime.plan import Bind, ContainerPlan, Device, Tmpfs


@pytest.mark.parametrize(
    ("destinations", "own"),
    [
        ((), True),
        (("/data", "/dev/shm", "/etc/hosts", "/data2/x"), True),
        (("/dev",), False),
        (("/x/../dev/",), False),
        (("/dev/null",), False),
        (("/link",), False),
        (("/link/null",), False),
        (("/data", "/data/below"), False),
    ],
)
def test_mounts_that_may_lie_over_it(tmp_path: Path, destinations: tuple[str, ...], own: bool) -> None:
    (tmp_path / "link").symlink_to("/dev")
    for mounts in (
        tuple(Bind(source=Path("/s"), destination=each) for each in destinations),
        tuple(Tmpfs(destination=each) for each in destinations),
    ):
        assert is_own(ContainerPlan(rootfs=tmp_path, args=("true",), mounts=mounts)) is own


@pytest.mark.parametrize(("path", "own"), [("/dev/fuse", True), ("/dev/null", False), ("/link/null", False)])
def test_devices_in_its_place(tmp_path: Path, path: str, own: bool) -> None:
    (tmp_path / "link").symlink_to("/dev")
    device = Device(path=path, type="c", major=1, minor=5)
    assert is_own(ContainerPlan(rootfs=tmp_path, args=("true",), devices=(device,))) is own

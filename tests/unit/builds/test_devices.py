"""Which CDI devices a RUN gets, by name, kind or class, and which it is refused."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pytest

from havre.builds.devices import choose_devices, parse_device_grants
from havre.containers.surroundings.cdi import KnownDevice
from havre.dockerfile.devices import RunDevice
from havre.errors import Forbidden, InvalidInput, NotFound

_CLASS, _OPEN = "org.mobyproject.buildkit.device.class", "org.mobyproject.buildkit.device.autoallow"


def known(*names: str, **annotations: Mapping[str, str]) -> list[KnownDevice]:
    return [KnownDevice(f"v.com/dev={name}", annotations.get(name, {})) for name in names]


def chosen(name: str, granted: Collection[str], devices: list[KnownDevice], *, required: bool = True) -> list[str]:
    found = choose_devices([RunDevice(name, required)], parse_device_grants(granted), devices)
    return [each.removeprefix("v.com/dev=") for each in found]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("v.com/dev=b", ["b"]),
        ("v.com/dev", ["a"]),
        ("v.com/dev=*", ["a", "b", "c"]),
        ("fast", ["b", "c"]),
    ],
)
def test_devices_by_name_kind_and_class(name: str, found: list[str]) -> None:
    devices = known("a", "b", "c", b={_CLASS: "fast"}, c={_CLASS: "fast"})
    assert chosen(name, ["device"], devices) == found


def test_missing_devices() -> None:
    assert chosen("v.com/dev=z", [], known("a"), required=False) == []
    for name in ("v.com/dev=z", "v.com/other", "fast", "v.com/other=*"):
        with pytest.raises(NotFound, match=f'required device "{name.replace("*", ".")}" is not registered'):
            chosen(name, ["device"], known("a"))


def test_what_must_be_granted() -> None:
    devices = known("a", "b", b={_OPEN: "true"})
    for granted in (["device"], ["device=v.com/dev=a"], ["network.host", "device=v.com/dev=b", "device=v.com/dev=*"]):
        assert chosen("v.com/dev=a", granted, devices) == ["a"]
    assert chosen("v.com/dev=b", [], devices) == ["b"]
    for granted in ([], ["device=v.com/dev=b"], ["device=v.com/other=a"]):
        with pytest.raises(Forbidden, match=r"device v.com/dev=a is requested by the build but not allowed"):
            chosen("v.com/dev=*", granted, devices)
    with pytest.raises(Forbidden, match=r"devices v.com/dev=a, v.com/dev=b are requested"):
        chosen("v.com/dev=*", [], known("a", "b"))


def test_a_name_of_the_dockerfile_for_a_device() -> None:
    assert chosen("gpu", ["device=v.com/dev=b,alias=gpu"], known("a", "b")) == ["b"]
    with pytest.raises(InvalidInput, match="unknown setting 'as=gpu'"):
        parse_device_grants(["device=v.com/dev=b,as=gpu"])

"""Devices by CDI name: what the files on the host say of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from havre.containers.surroundings.cdi import Edits, resolve
from havre.errors import Failed
from havre.runtime.plan import Bind, Hook

FILE = {
    "cdiVersion": "0.6.0",
    "kind": "vendor.example/dev",
    "containerEdits": {"env": ["ALL=1"]},
    "devices": [
        {
            "name": "zero",
            "containerEdits": {"deviceNodes": [{"path": "/dev/my-zero", "hostPath": "/dev/zero", "uid": 7}]},
        },
        {"name": "lib", "containerEdits": {"mounts": [{"hostPath": "/etc", "containerPath": "/x", "options": ["ro"]}]}},
        {"name": "hook", "containerEdits": {"hooks": [{"hookName": "createContainer", "path": "/bin/true"}]}},
        {"name": "wrong", "containerEdits": {"hooks": [{"hookName": "createContainer", "path": "relative"}]}},
        {"name": "rdt", "containerEdits": {"intelRdt": {"closID": "low", "enableMBM": True}}},
        {"name": "groups", "containerEdits": {"additionalGids": [0, 5]}},
        {"name": "net", "containerEdits": {"netDevices": [{"hostInterfaceName": "eth9", "name": "eth1"}]}},
    ],
}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "vendor.json").write_text(json.dumps(FILE))
    return tmp_path


def test_nodes_binds_and_variables(directory: Path) -> None:
    edits = resolve(["vendor.example/dev=zero", "vendor.example/dev=lib"], (directory, directory / "none"))
    (device,) = edits.devices
    assert (device.path, device.major, device.minor, device.uid) == ("/dev/my-zero", 1, 5, 7)
    assert edits.mounts == (Bind(source=Path("/etc"), destination="/x", read_only=True, recursive=True),)
    assert edits.env == ("ALL=1",)
    assert resolve([], (directory,)) == Edits()


def test_hooks_classes_and_groups(directory: Path) -> None:
    edits = resolve([f"vendor.example/dev={name}" for name in ("hook", "rdt", "groups")], (directory,))
    assert edits.hooks == (Hook(when="createContainer", path="/bin/true"),)
    assert edits.intel_rdt == {"closID": "low", "enableMBM": True}
    assert edits.groups == (5,)


def test_yaml_in_a_later_directory_wins(directory: Path, tmp_path: Path) -> None:
    later = tmp_path / "later"
    later.mkdir()
    (later / "v.yaml").write_text(
        "kind: vendor.example/dev\ndevices:\n- name: zero\n  containerEdits:\n    env: [NEW=1]\n"
    )
    assert resolve(["vendor.example/dev=zero"], (directory, later)) == Edits(env=("NEW=1",))


@pytest.mark.parametrize("name", ["vendor.example/dev=none", "other/dev=zero", "odd"])
def test_unknown_devices(directory: Path, name: str) -> None:
    with pytest.raises(Failed, match="CDI device injection failed: unresolvable CDI devices " + name):
        resolve([name], (directory,))


def test_what_is_refused(directory: Path) -> None:
    with pytest.raises(Failed, match="invalid hook 'createContainer' with the path 'relative'"):
        resolve(["vendor.example/dev=wrong"], (directory,))
    with pytest.raises(Failed, match="netDevices are not supported"):
        resolve(["vendor.example/dev=net"], (directory,))
    for wrong in ('{"kind": 1}', '{"x":' + "[" * 100_000):
        (directory / "bad.json").write_text(wrong)
        with pytest.raises(Failed, match=r"bad\.json"):
            resolve(["vendor.example/dev=zero"], (directory,))

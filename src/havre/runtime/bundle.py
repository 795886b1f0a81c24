"""A container's bundle: the directory `run_root/containers/ID`, and what the daemon reads and writes in it.

It is the container's OCI bundle and conmon's working directory:

    config.json   the OCI specification          state.json   PIDs with start times: written once created
    attach, ctl   conmon's socket and FIFO       exit/ID      conmon's record of the end
    dump.log, restore.log                        criu's log of a checkpoint
    exec/EXECID/  one like this per exec         oom          conmon noticed an OOM kill

`ID.HEX.gone` beside it is the bundle of an ended run; removed in the background, or when the next daemon opens.

Everything here blocks.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from havre.runtime.spec import DEFAULT_CGROUP_PARENT

_SPEC = "config.json"
_STATE = "state.json"
_GONE = ".gone"


class State(msgspec.Struct):
    """What taking a container over needs and the kernel does not report."""

    pid: int
    pid_started: int
    conmon: int
    conmon_started: int
    runtime: str
    cgroup: str
    ends_input: bool


class _Spec(msgspec.Struct):
    """The part of a specification that `Process` reads: small, so that taking over many containers is fast."""

    root: dict[str, Any]
    process: dict[str, Any]
    hooks: dict[str, Any] | None = None


def group_of(bundle: Path) -> str:
    """The cgroup configured for a container."""
    try:
        spec = json.loads((bundle / _SPEC).read_bytes())
    except (FileNotFoundError, json.JSONDecodeError):  # killed while writing it: nothing was created
        return f"{DEFAULT_CGROUP_PARENT}/{bundle.name}"
    group: str = spec["linux"]["cgroupsPath"]
    return group


def read_bundle(bundle: Path) -> tuple[State, Mapping[str, Any]]:
    """Read the parts of a bundle that taking it over needs."""
    state = msgspec.json.decode((bundle / _STATE).read_bytes(), type=State)
    spec = msgspec.json.decode((bundle / _SPEC).read_bytes(), type=_Spec)
    return state, {name: value for name, value in msgspec.structs.asdict(spec).items() if value is not None}


def make_bundle(bundle: Path, spec: Mapping[str, Any]) -> None:
    """Create a bundle with its specification. FileExistsError."""
    bundle.mkdir(mode=0o700)
    (bundle / "exit").mkdir(mode=0o700)
    (bundle / _SPEC).write_bytes(msgspec.json.encode(spec))


def is_gone(name: str) -> bool:
    """Report whether a directory's name is that of an ended run."""
    return name.endswith(_GONE)


def set_aside(bundle: Path) -> Path:
    """Rename the bundle of an ended run, so that nothing recreates a part of it; its new path."""
    return bundle.rename(bundle.with_name(f"{bundle.name}.{secrets.token_hex(4)}{_GONE}"))


def sweep(containers: Path) -> None:
    """Remove the bundles of ended runs that an earlier daemon left."""
    for entry in os.scandir(containers):
        if is_gone(entry.name):
            shutil.rmtree(entry.path)


def write_state(bundle: Path, state: State) -> None:
    """Write the state of a created container, whole or not at all."""
    file = bundle / _STATE
    fresh = file.with_suffix(".new")
    fresh.write_bytes(msgspec.json.encode(state))
    fresh.rename(file)

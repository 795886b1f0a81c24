"""The platforms whose programs this host can run: its own, and those with an interpreter in binfmt_misc.

    RUN in a stage for linux/arm64 on amd64      no interpreter registered: refused before the build starts
                                                 flag F: the kernel has opened it already, images need nothing
                                                 without F: the kernel opens it in the image when a program starts

Source: Documentation/admin-guide/binfmt-misc.rst; elf(5), e_machine.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from havre.dockerfile.graph import Graph
from havre.dockerfile.instructions import Run
from havre.dockerfile.syntax import DockerfileError
from havre.errors import Unsupported
from havre.linux.openat2 import open_in_root
from havre.oci.platform import Platform

BINFMT = Path("/proc/sys/fs/binfmt_misc")
_MACHINES = {
    3: "386", 8: "mips64le", 0x15: "ppc64le", 0x16: "s390x", 0x28: "arm", 0x3E: "amd64", 0xB7: "arm64", 0xF3: "riscv64",
    0x102: "loong64",
}  # fmt: skip
_BESIDE = {"amd64": ("386",), "arm64": ("arm",)}  # 32-bit architectures that processors usually run as well
_MACHINE_AT, _ORDER_AT, _BIG_ENDIAN = 18, 5, 2


def find_interpreters(own: str, registered: Path = BINFMT) -> Mapping[str, str]:
    """The architectures whose programs run here, each with the interpreter that images must contain, or "".

    Blocking; reads binfmt_misc.
    """
    found: dict[str, str] = {}
    for entry in registered.iterdir() if _is_enabled(registered) else ():
        if entry.name in ("register", "status"):
            continue
        rule = dict(line.partition(" ")[::2] for line in entry.read_text().splitlines())
        if (architecture := _architecture(rule)) and found.get(architecture) != "":
            found[architecture] = "" if "F" in rule.get("flags:", "") else rule.get("interpreter", "")
    return {**found, **dict.fromkeys((own, *_BESIDE.get(own, ())), "")}


def _is_enabled(registered: Path) -> bool:
    status = registered / "status"  # missing unless binfmt_misc is mounted
    return status.exists() and status.read_text().strip() == "enabled"


def _architecture(rule: Mapping[str, str]) -> str:
    """The architecture of a rule of binfmt_misc, from the ELF header that it matches; "" for other rules."""
    magic = bytes.fromhex(rule.get("magic", ""))
    mask = bytes.fromhex(rule.get("mask", "ff" * len(magic)))
    machine = slice(_MACHINE_AT, _MACHINE_AT + 2)
    if "enabled" not in rule or rule.get("offset") != "0" or not magic.startswith(b"\x7fELF"):
        return ""
    if mask[machine] != b"\xff\xff":
        return ""  # matches several machines
    number = int.from_bytes(magic[machine], "big" if magic[_ORDER_AT] == _BIG_ENDIAN else "little")
    return _MACHINES.get(number, "")


def require_interpreter(rootfs: Path, interpreter: str) -> None:
    """Raise `Unsupported` if the image lacks the interpreter that it must contain. Blocking."""
    try:
        os.close(open_in_root(rootfs, interpreter, os.O_PATH))
    except OSError as error:
        raise Unsupported(
            f"RUN needs {interpreter} in the image ({error.strerror}): the kernel's rule for such programs"
            " (binfmt_misc) lacks the flag F",
            "register the interpreter with F, as the package qemu-user-binfmt does",
        ) from error


def check_runs(graph: Graph, wanted: Platform, runnable: Collection[str]) -> None:
    """Refuse RUN for a platform whose programs cannot run here. Raises `DockerfileError` with its line."""
    for stage in (graph.stages[index] for index in graph.needed):
        platform = graph.platform_of(stage, wanted)
        run = next((each for each in stage.commands if isinstance(each, Run)), None)
        if run is not None and platform.architecture not in runnable:
            error = DockerfileError(
                f"RUN cannot run programs for {platform} here: no interpreter for {platform.architecture} is registered"
                " with the kernel (binfmt_misc)",
                run.line,
                "RUN",
            )
            error.hint = "install qemu-user-binfmt, or compile in a stage FROM --platform=$BUILDPLATFORM"
            raise error

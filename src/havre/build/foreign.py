"""Which platforms this host can run commands of: its own, and those that the kernel hands to an interpreter.

    RUN in a stage for linux/arm64 on amd64      binfmt_misc has an interpreter of such programs? else refused at once

Source: Documentation/admin-guide/binfmt-misc.rst; elf(5), e_machine.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from havre.build.dockerfile import DockerfileError
from havre.build.graph import Graph, Stage
from havre.build.instructions import Run
from havre.oci.platform import Platform, parse_platform

BINFMT = Path("/proc/sys/fs/binfmt_misc")
_MACHINES = {
    3: "386", 8: "mips64le", 0x15: "ppc64le", 0x16: "s390x", 0x28: "arm", 0x3E: "amd64", 0xB7: "arm64", 0xF3: "riscv64",
    0x102: "loong64",
}  # fmt: skip
_BESIDE = {"amd64": ("386",), "arm64": ("arm",)}  # what processors of an architecture usually run as well
_MACHINE_AT, _ORDER_AT, _BIG_ENDIAN = 18, 5, 2


def runnable_architectures(own: str, registered: Path = BINFMT) -> frozenset[str]:
    """The architectures whose programs run here. Blocking; reads a few files of the kernel's."""
    found = {own, *_BESIDE.get(own, ())}
    if registered.is_dir():
        for entry in registered.iterdir():
            if entry.name not in ("register", "status"):
                found |= {_architecture(entry.read_text())}
    return frozenset(found - {""})


def _architecture(rule: str) -> str:
    """What a rule of binfmt_misc is for, by the ELF header that it matches; "" for any other."""
    words = dict(line.partition(" ")[::2] for line in rule.splitlines())
    magic = bytes.fromhex(words.get("magic", ""))
    if "enabled" not in words or not magic.startswith(b"\x7fELF") or len(magic) < _MACHINE_AT + 2:
        return ""
    machine = magic[_MACHINE_AT : _MACHINE_AT + 2]
    if magic[_ORDER_AT] != _BIG_ENDIAN:
        machine = machine[::-1]
    return _MACHINES.get(int.from_bytes(machine), "")


def check_runs(graph: Graph, wanted: Platform, runnable: Collection[str]) -> None:
    """Refuse a RUN that would be of another platform than can be run; `DockerfileError` at its line."""
    for stage in (graph.stages[index] for index in graph.needed):
        platform = _platform_of(stage, graph, wanted)
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


def _platform_of(stage: Stage, graph: Graph, wanted: Platform) -> Platform:
    while stage.after is not None:
        stage = graph.stages[stage.after]
    return parse_platform(stage.platform) if stage.platform else wanted

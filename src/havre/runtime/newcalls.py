"""Makes a seccomp filter return ENOSYS for system calls newer than its profile, as runc does.

A filter returns EPERM for calls that it does not list. A libc that tries a new system call falls back to older ones on
ENOSYS, but not on EPERM. runc therefore prepends instructions to every filter that denies by default: numbers above the
last one that the profile names on an architecture return ENOSYS. crun does not, but accepts a compiled filter, so this
compiles the filter that crun would, with the same instructions in front:

            ld arch                          the last call of x86_64 that Docker's profile names: 456
            jeq X86_64, 0, next              x32's calls have the same architecture, and bit 30
            ld nr
            jge 0x40000000, x32
            jgt 456, ENOSYS, filter
     x32:   jgt 0x400001c8, ENOSYS, filter
     next:  ...the same for each further architecture
            ja filter                        which handles other architectures
     ENOSYS: ret ERRNO | 38
     filter: ...

Source: seccomp(2), "struct seccomp_data"; runc's libcontainer/seccomp/patchbpf; crun(1), run.oci.seccomp_bpf_data.
"""

from __future__ import annotations

import base64
import logging
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from havre.aio import in_thread
from havre.linux import seccomp
from havre.linux.seccomp import Comparison, Compiler

log = logging.getLogger(__name__)

_compiled: dict[bytes, str] = {}  # by linux.seccomp: most containers have the same
_KEPT = 16

ANNOTATION = "run.oci.seccomp_bpf_data"

_ACTIONS = {
    "ALLOW": seccomp.ALLOW,
    "ERRNO": seccomp.ERRNO,
    "KILL": seccomp.KILL_THREAD,
    "KILL_PROCESS": seccomp.KILL_PROCESS,
    "KILL_THREAD": seccomp.KILL_THREAD,
    "LOG": seccomp.LOG,
    "NOTIFY": seccomp.NOTIFY,
    "TRACE": seccomp.TRACE,
    "TRAP": seccomp.TRAP,
}
_PERMISSIVE = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE", "SCMP_ACT_NOTIFY")
_EPERM, _ENOSYS = 1, 38
_X86_64, _X32, _X32_BIT = 0xC000003E, 0x4000003E, 0x40000000
_LOAD, _RETURN = 0x20, 0x06  # BPF_LD|BPF_W|BPF_ABS, BPF_RET|BPF_K
_JA, _JEQ, _JGT, _JGE = 0x05, 0x15, 0x25, 0x35  # BPF_JMP|...|BPF_K
_NUMBER, _ARCHITECTURE = 0, 4  # offsets in struct seccomp_data


async def add_compiled(spec: dict[str, Any]) -> None:
    """Add the compiled filter to an OCI specification for crun, unless crun compiles the same by itself."""
    rendered = spec["linux"].get("seccomp")
    if rendered is None:
        return
    encoded = msgspec.json.encode(rendered)
    if encoded not in _compiled:
        made = await in_thread(_compile, encoded)
        if len(_compiled) >= _KEPT:
            _compiled.pop(next(iter(_compiled)), None)
        _compiled[encoded] = made
    if program := _compiled[encoded]:
        spec["annotations"] = spec.get("annotations", {}) | {ANNOTATION: program}


def _compile(encoded: bytes) -> str:
    """In base64; "" for a filter that does not deny by default, or cannot be compiled. Blocking."""
    rendered = msgspec.json.decode(encoded)
    if rendered["defaultAction"] in _PERMISSIVE:
        return ""
    try:
        program = compile_filter(rendered)
    except (OSError, KeyError, ValueError) as error:  # crun reports a profile's errors better
        log.info("system calls newer than a seccomp profile return EPERM: %s", error)
        return ""
    return base64.b64encode(program).decode()


def compile_filter(rendered: Mapping[str, Any]) -> bytes:
    """The BPF program of a `linux.seccomp` that denies by default. OSError, KeyError or ValueError when it cannot
    compile."""
    rules = rendered["syscalls"]
    default = _action(rendered["defaultAction"], rendered.get("defaultErrnoRet"))
    architectures = [_architecture(name) for name in rendered.get("architectures", ())]
    with Compiler(default) as compiler:
        for architecture in architectures:
            compiler.add_architecture(architecture)
        for rule in rules:
            action = _action(rule["action"], rule.get("errnoRet"))
            if action == default:
                continue
            for name in rule["names"]:
                for comparisons in _comparisons(rule.get("args") or ()):
                    compiler.add_rule(action, name, comparisons)
        program = compiler.program()
    named = {name for rule in rules for name in rule["names"]}
    last = {each: max((seccomp.number_of(name, each) for name in named), default=-1) for each in architectures}
    return _refuse_beyond({each: number for each, number in last.items() if number >= 0}) + program


def _action(name: str, errno: int | None) -> int:
    action = _ACTIONS[name.removeprefix("SCMP_ACT_")]
    takes_value = action in (seccomp.ERRNO, seccomp.TRACE)
    if errno is not None and not takes_value:
        raise ValueError(f"errno value specified for action {name}")
    return action | ((_EPERM if errno is None else errno) & 0xFFFF if takes_value else 0)


def _architecture(name: str) -> int:
    number = seccomp.architecture(name.removeprefix("SCMP_ARCH_").lower())
    if not number:
        raise ValueError(f"unknown architecture {name}")
    return number


def _comparisons(arguments: Sequence[Mapping[str, Any]]) -> Iterator[list[Comparison]]:
    """Yield rules from a list of conditions: one of all of them or, if an argument occurs twice, one for each."""
    made = []
    for each in arguments:
        operator = seccomp.OPERATORS[each["op"].removeprefix("SCMP_CMP_")]
        made.append(Comparison(each["index"], operator, each["value"], each.get("valueTwo", 0)))
    if len({each.argument for each in made}) == len(made):
        yield made
    else:
        yield from ([each] for each in made)


def _refuse_beyond(last: Mapping[int, int]) -> bytes:
    """The prepended instructions; `last` is the highest known call of each architecture."""
    checks: list[tuple[int, list[tuple[int, int]]]] = []  # architecture; jumps: (opcode, number)
    for architecture, number in last.items():
        if architecture == _X86_64:
            x32 = last.get(_X32)
            beyond = [(_JGE, _X32_BIT), (_JGT, number)]
            checks.append((architecture, beyond if x32 is None else [*beyond, (_JGT, x32 | _X32_BIT)]))
        elif architecture != _X32:
            checks.append((architecture, [(_JGT, number)]))
    length = sum(2 + len(jumps) for _, jumps in checks) + 3
    program = [(_LOAD, 0, 0, _ARCHITECTURE)]
    for architecture, jumps in checks:
        program.append((_JEQ, 0, 1 + len(jumps), architecture))
        program.append((_LOAD, 0, 0, _NUMBER))
        for opcode, number in jumps:
            at = len(program) + 1  # jumps are relative to this
            enosys, onward = length - 1 - at, length - at
            if opcode == _JGE:  # skips the check of x86_64's own calls
                program.append((opcode, 1 if len(jumps) > 2 else onward, 0, number))
            else:
                program.append((opcode, enosys, onward, number))
    program.append((_JA, 0, 0, 1))
    program.append((_RETURN, 0, 0, seccomp.ERRNO | _ENOSYS))
    return b"".join(struct.pack("=HBBI", *each) for each in program)

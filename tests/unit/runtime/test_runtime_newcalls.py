"""Compiled seccomp filters, run as the kernel runs them."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from havre.linux import seccomp
from havre.linux.seccomp import Compiler
from havre.runtime.capabilities import DEFAULT
from havre.runtime.newcalls import compile_filter
from havre.runtime.seccomp import DEFAULT_PROFILE, render_seccomp

X86_64, I386, ARM64 = 0xC000003E, 0x40000003, 0xC00000B7
X32 = 0x40000000
EPERM, ENOSYS = seccomp.ERRNO | 1, seccomp.ERRNO | 38
NEWUSER = 0x10000000


def run(program: bytes, architecture: int, number: int, *arguments: int) -> int:
    """What the filter says of a call (struct seccomp_data of seccomp(2))."""
    data = struct.pack("=IIQ6Q", number, architecture, 0, *(arguments + (0,) * 6)[:6])
    at = value = 0
    while True:
        opcode, yes, no, operand = struct.unpack_from("=HBBI", program, at * 8)
        at += 1
        if opcode == 0x20:
            (value,) = struct.unpack_from("=I", data, operand)
        elif opcode == 0x54:
            value &= operand
        elif opcode == 0x05:
            at += operand
        elif opcode == 0x06:
            return int(operand)
        else:
            holds = {0x15: value == operand, 0x25: value > operand, 0x35: value >= operand}[opcode]
            at += yes if holds else no


@pytest.fixture(scope="module")
def default() -> bytes:
    return compile_filter(render_seccomp(DEFAULT_PROFILE, capabilities=DEFAULT, machine="x86_64", kernel=(6, 12)))


@pytest.mark.parametrize("number", [*range(457, 470), 512, 1000, X32 - 1, X32 + 600, 0xFFFFFFFF])
def test_calls_newer_than_the_profile_do_not_exist(default: bytes, number: int) -> None:
    assert run(default, X86_64, number) == ENOSYS


@pytest.mark.parametrize(
    ("number", "arguments", "said"),
    [
        (0, (), seccomp.ALLOW),  # read
        (456, (), seccomp.ALLOW),  # futex_requeue
        (272, (), EPERM),  # unshare
        (165, (), EPERM),  # mount
        (425, (), EPERM),  # io_uring_setup
        (335, (), EPERM),  # in no table
        (435, (), ENOSYS),  # clone3
        (56, (0x11,), seccomp.ALLOW),  # clone, as fork does it
        (56, (0x11 | NEWUSER,), EPERM),
        (135, (0xFFFFFFFF,), seccomp.ALLOW),  # personality
        (135, (0x0040000,), EPERM),
        (41, (2,), seccomp.ALLOW),  # socket
        (41, (40,), EPERM),  # of AF_VSOCK
        (X32, (), seccomp.ALLOW),  # x32's read
        (X32 + 272, (), EPERM),
    ],
)
def test_older_calls_are_the_profiles(default: bytes, number: int, arguments: tuple[int, ...], said: int) -> None:
    assert run(default, X86_64, number, *arguments) == said


def test_each_architecture_has_calls_of_its_own(default: bytes) -> None:
    assert run(default, I386, 3) == seccomp.ALLOW  # read
    assert run(default, I386, 310) == EPERM  # unshare
    assert run(default, I386, 457) == ENOSYS
    for number in (0, 457):
        assert run(default, ARM64, number) == seccomp.KILL_THREAD  # not filtered for


def test_a_profile_of_ones_own_is_treated_alike() -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 13,
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [
            {"names": ["read", "no_such_call"], "action": "SCMP_ACT_ALLOW"},
            {
                "names": ["write"],
                "action": "SCMP_ACT_ALLOW",
                "args": [
                    {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"},
                    {"index": 0, "value": 2, "op": "SCMP_CMP_EQ"},
                ],
            },
            {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5},
        ],
    }
    program = compile_filter(profile)
    said = [run(program, X86_64, number, argument) for number, argument in ((0, 9), (1, 1), (1, 2), (1, 3), (62, 0))]
    assert said == [seccomp.ALLOW, seccomp.ALLOW, seccomp.ALLOW, seccomp.ERRNO | 13, seccomp.ERRNO | 5]
    assert [run(program, X86_64, number) for number in (61, 63, X32 + 1)] == [seccomp.ERRNO | 13, ENOSYS, 0]


@pytest.mark.parametrize(
    "odd",
    [
        {"defaultAction": "SCMP_ACT_ODD"},
        {"defaultAction": "SCMP_ACT_KILL", "defaultErrnoRet": 1},
        {"architectures": ["SCMP_ARCH_ODD"]},
        {"syscalls": [{"names": ["read"], "action": "SCMP_ACT_KILL", "errnoRet": 1}]},
        {"syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 9, "value": 1, "op": "EQ"}]}]},
        {"syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 1, "op": "X"}]}]},
    ],
)
def test_what_is_odd_is_left_to_the_runtime(odd: dict[str, Any]) -> None:
    with pytest.raises((OSError, KeyError, ValueError)):
        compile_filter({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": []} | odd)


def test_a_rule_that_says_the_default_is_refused_by_libseccomp() -> None:
    with Compiler(seccomp.ALLOW) as compiler, pytest.raises(OSError, match="seccomp_rule_add_array read"):
        compiler.add_rule(seccomp.ALLOW, "read", [])

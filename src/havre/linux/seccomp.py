"""Seccomp filters compiled to classic BPF by libseccomp, as in the OCI runtimes.

    with Compiler(default_action) as compiler:     # raises Missing without libseccomp
        compiler.add_architecture("x86_64")
        compiler.add_rule(action, "clone", [Comparison(0, MASKED_EQ, mask, value)])
        program = compiler.program()               # struct sock_filter[], 8 bytes each

Blocking, a millisecond or two.

Source: seccomp_init(3), seccomp_rule_add(3), seccomp_export_bpf(3); seccomp(2).
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

KILL_PROCESS, KILL_THREAD, TRAP, ERRNO = 0x80000000, 0x00000000, 0x00030000, 0x00050000
NOTIFY, TRACE, LOG, ALLOW = 0x7FC00000, 0x7FF00000, 0x7FFC0000, 0x7FFF0000
OPERATORS = {"NE": 1, "LT": 2, "LE": 3, "EQ": 4, "GE": 5, "GT": 6, "MASKED_EQ": 7}

_LIBRARY = "libseccomp.so.2"
_NO_SUCH_CALL = -1  # __NR_SCMP_ERROR; other negative numbers are pseudo numbers: calls of another architecture
_EEXIST = 17


class Missing(OSError):
    """libseccomp is not installed."""


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


@dataclass(frozen=True, slots=True)
class Comparison:
    """Compares argument 0 to 5 with one number; for MASKED_EQ with two: the mask and the masked value."""

    argument: int
    operator: int
    first: int
    second: int = 0


@functools.cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise Missing(str(error)) from error
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint32
    for name, result, arguments in (
        ("seccomp_init", pointer, (number,)),
        ("seccomp_release", None, (pointer,)),
        ("seccomp_arch_resolve_name", number, (text,)),
        ("seccomp_arch_add", ctypes.c_int, (pointer, number)),
        ("seccomp_syscall_resolve_name", ctypes.c_int, (text,)),
        ("seccomp_syscall_resolve_name_arch", ctypes.c_int, (number, text)),
        ("seccomp_rule_add_array", ctypes.c_int, (pointer, number, ctypes.c_int, ctypes.c_uint, pointer)),
        ("seccomp_export_bpf", ctypes.c_int, (pointer, ctypes.c_int)),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def architecture(name: str) -> int:
    """libseccomp's token of an architecture (`x86_64`); 0 for an unknown name."""
    return int(_library().seccomp_arch_resolve_name(name.encode()))


def number_of(call: str, architecture: int) -> int:
    """The number of a system call on an architecture; negative if it does not exist there or is unknown."""
    return int(_library().seccomp_syscall_resolve_name_arch(architecture, call.encode()))


class Compiler:
    """One filter. Raises OSError where libseccomp returns an error."""

    def __init__(self, default: int) -> None:
        self._library = _library()
        self._filter = self._library.seccomp_init(default)
        if not self._filter:
            raise OSError(f"seccomp_init refuses the action {default:#x}")

    def __enter__(self) -> Compiler:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._library.seccomp_release(self._filter)

    def add_architecture(self, number: int) -> None:
        """Filter this architecture's calls too; the native one is included from the start."""
        _check(self._library.seccomp_arch_add(self._filter, number), "seccomp_arch_add", _EEXIST)

    def add_rule(self, action: int, call: str, comparisons: Sequence[Comparison]) -> None:
        """Apply `action` to `call` when all comparisons hold. Calls unknown to libseccomp are ignored."""
        number = self._library.seccomp_syscall_resolve_name(call.encode())
        if number == _NO_SUCH_CALL:
            return
        compared = [_Comparison(each.argument, each.operator, each.first, each.second) for each in comparisons]
        made = (_Comparison * len(compared))(*compared)
        added = self._library.seccomp_rule_add_array(self._filter, action, number, len(comparisons), made)
        _check(added, f"seccomp_rule_add_array {call}")

    def program(self) -> bytes:
        """The compiled filter."""
        file = os.memfd_create("seccomp", os.MFD_CLOEXEC)
        try:
            _check(self._library.seccomp_export_bpf(self._filter, file), "seccomp_export_bpf")
            return os.pread(file, os.fstat(file).st_size, 0)
        finally:
            os.close(file)


def _check(result: int, what: str, *fine: int) -> None:
    if result < 0 and -result not in fine:
        raise OSError(-result, f"{what}: {os.strerror(-result)}")

"""Programs of two architectures, and an engine whose kernel runs those for arm64 by qemu.

The machine's binfmt_misc is not changed: since Linux 6.7 a user namespace can have its own, and the engine runs as
root of such a namespace (64 Ki users, all groups, its own network). `tools/setup.sh` puts qemu beside Python, so it
is not installed.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

from support.engines import HAVRED, Havred

QEMU = Path(sys.prefix) / "bin" / "qemu-aarch64"
_START = r"""
set -e
mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
printf %s ':arm64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00::'"$1:$2" \
    >/proc/sys/fs/binfmt_misc/register
ip link set lo up
shift 2
exec "$@"
"""
_LOAD, _HEADERS = 0x400000, 120  # the load address of the program; bytes of the two headers
_MACHINES = {"amd64": 0x3E, "arm64": 0xB7}


class Emulating(Havred):
    """havre, where arm64 programs run by qemu; `flags` are those of the binfmt_misc rule."""

    def __init__(self, flags: str) -> None:
        super().__init__()
        own = ("unshare", "--map-users=0:0:65536", "--map-groups=0:0:2147483648", "--user", "--mount", "--net")
        self.program = (*own, "sh", "-c", _START, "sh", str(QEMU), flags, str(HAVRED))


def program(architecture: str) -> bytes:
    """A static program that writes `made on ARCHITECTURE` to standard output and into the file /made."""
    text, path = f"made on {architecture}\n".encode(), b"/made\0"
    code = (_arm64_code if architecture == "arm64" else _amd64_code)(len(text))
    size = _HEADERS + len(code) + len(text) + len(path)
    kind = struct.pack("<HHI", 2, _MACHINES[architecture], 1)  # an executable file
    sizes = struct.pack("<IHHHHHH", 0, 64, 56, 1, 0, 0, 0)
    ident = b"\x7fELF\2\1\1".ljust(16, b"\0")
    header = ident + kind + struct.pack("<QQQ", _LOAD + _HEADERS, 64, 0) + sizes
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _LOAD, _LOAD, size, size, 0x10000)
    return header + segment + code + text + path


def _arm64_code(length: int) -> bytes:
    """write(1, text, length); write(openat(AT_FDCWD, path, O_WRONLY|O_CREAT, 0644), text, length); exit(0)."""
    steps = (
        *(("x0", 1), ("text", 0), ("x2", length), ("x8", 64), ("call", 0)),
        *(("here", 0), ("path", 0), ("x2", 0o101), ("x3", 0o644), ("x8", 56), ("call", 0)),
        *(("text", 0), ("x2", length), ("x8", 64), ("call", 0)),
        *(("x0", 0), ("x8", 93), ("call", 0)),
    )
    words = []
    for number, (name, value) in enumerate(steps):
        ahead = 4 * (len(steps) - number) + (length if name == "path" else 0)
        if name in ("text", "path"):
            words.append(0x10000001 | (ahead & 3) << 29 | ahead >> 2 << 5)  # adr x1, ahead
        elif name.startswith("x"):
            words.append(0xD2800000 | value << 5 | int(name[1:]))  # mov
        else:
            words.append({"call": 0xD4000001, "here": 0x92800C60}[name])  # svc #0; mov x0, #-100
    return struct.pack(f"<{len(words)}I", *words)


def _amd64_code(length: int) -> bytes:
    """write(1, text, length); write(open(path, O_WRONLY|O_CREAT, 0644), text, length); exit(0)."""

    def set_(register: int, value: int) -> bytes:
        return bytes([0xB8 | register]) + struct.pack("<I", value)

    eax, edx, esi, edi, call = 0, 2, 6, 7, b"\x0f\x05"
    parts = [
        set_(edi, 1) + set_(edx, length) + set_(eax, 1) + b"text" + call,
        set_(esi, 0o101) + set_(edx, 0o644) + set_(eax, 2) + b"path" + call,
        b"\x89\xc7" + set_(edx, length) + set_(eax, 1) + b"text" + call,  # mov edi, eax
        set_(edi, 0) + set_(eax, 60) + call,
    ]
    code = b"".join(parts).replace(b"text", b"\x48\x8d\x35text").replace(b"path", b"\x48\x8d\x3dpath")
    for name, beyond in ((b"text", 0), (b"path", length)):  # lea rsi, [text]; lea rdi, [path]
        while (at := code.find(name)) >= 0:
            code = code[:at] + struct.pack("<i", len(code) - at - 4 + beyond) + code[at + 4 :]
    return code

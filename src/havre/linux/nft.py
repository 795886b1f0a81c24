"""nftables through libnftables, in this process: one call is one transaction.

Owns the library's context and decodes its errors; the meaning of rules is the caller's. Commands are nft(8) text of
several lines; the kernel applies all or none. `Monitor` reports changes made by any process.

A context and a monitor belong to the network namespace of the thread that creates them.

libnftables waits for its socket with select(2), whose set ends at descriptor 1023; a larger one aborts the process. A
context therefore opens its socket early, and `Nft` raises EMFILE when no low descriptor is free.
Source: libnftables(3), nft(8), linux/netfilter/nf_tables.h. Failures are OSError with nft's text.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass

_JSON_OUTPUT, _TERSE_OUTPUT = 1 << 4, 1 << 11
_NETLINK_NETFILTER, _SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP_NFTABLES = 12, 270, 1, 7
_SUBSYSTEM_NFTABLES, _NEWGEN = 10, 15
_FD_SETSIZE = 1024
_HEADER = struct.Struct("=IHHII")
_TABLE_NAME, _GEN_PROC_NAME = 1, 3  # NFTA_*_TABLE is 1 in messages on tables, chains, rules, sets and elements


class Nft:
    """A libnftables context. Thread-safe; calls are serialised."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _check_number()
        self._library = _load()
        self._context = self._library.nft_ctx_new(0)
        if not self._context:
            raise OSError(errno.ENOMEM, "cannot make a libnftables context")
        self._library.nft_ctx_buffer_output(self._context)
        self._library.nft_ctx_buffer_error(self._context)

    def run(self, commands: str, *, json: bool = False, terse: bool = False) -> str:
        """Run nft commands as one transaction and return their output: as JSON, or `terse` (without set elements)."""
        flags = (_JSON_OUTPUT if json else 0) | (_TERSE_OUTPUT if terse else 0)
        with self._lock:
            if not self._context:
                raise OSError(errno.EBADF, "nft: the context is closed")
            self._library.nft_ctx_output_set_flags(self._context, flags)
            failed = self._library.nft_run_cmd_from_buffer(self._context, commands.encode())
            output: bytes = self._library.nft_ctx_get_output_buffer(self._context)
            error: bytes = self._library.nft_ctx_get_error_buffer(self._context)
        if failed:
            text = error.decode(errors="replace").strip()
            raise OSError(_errno_of(text), f"nft: {text}")
        return output.decode()

    def close(self) -> None:
        """Free the context and close its socket."""
        with self._lock:
            if self._context:
                self._library.nft_ctx_free(self._context)
                self._context = None


@dataclass(frozen=True)
class Change:
    """One committed transaction: the tables it changed, and the netlink port and name of the program that made it."""

    port: int
    program: str
    tables: frozenset[str]


class Monitor:
    """A netlink socket that receives every change of nftables in its namespace; for use in an event loop."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, _NETLINK_NETFILTER)
        self._socket.bind((0, 0))
        self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP_NFTABLES)
        self._touched: set[str] = set()

    def fileno(self) -> int:
        """The descriptor to wait on for reading."""
        return self._socket.fileno()

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()

    def changes(self) -> list[Change]:
        """Return the changes since the last call, without blocking. OSError ENOBUFS: events were lost, list the
        rules again."""
        found: list[Change] = []
        while True:
            try:
                data = self._socket.recv(1 << 17)
            except BlockingIOError:
                return found
            found.extend(self._decode(data))

    def _decode(self, data: bytes) -> Iterator[Change]:
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, _, _, port = _HEADER.unpack_from(data, offset)
            body = data[offset + _HEADER.size + 4 : offset + length]  # after nfgenmsg
            offset += max(_HEADER.size, (length + 3) & ~3)
            if kind >> 8 != _SUBSYSTEM_NFTABLES:
                continue
            if kind & 0xFF == _NEWGEN:
                program = _attribute(body, _GEN_PROC_NAME).rstrip(b"\0").decode(errors="replace")
                yield Change(port, program, frozenset(self._touched))
                self._touched.clear()
            else:
                self._touched.add(_attribute(body, _TABLE_NAME).rstrip(b"\0").decode())


def _attribute(body: bytes, wanted: int) -> bytes:
    offset = 0
    while offset + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, offset)
        if kind & 0x3FFF == wanted:
            return body[offset + 4 : offset + length]
        offset += max(4, (length + 3) & ~3)
    return b""


def _check_number() -> None:
    """Raise OSError EMFILE if the next socket would get a descriptor beyond select(2)'s FD_SETSIZE."""
    lowest = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    os.close(lowest)
    if lowest >= _FD_SETSIZE:
        raise OSError(errno.EMFILE, f"libnftables needs a descriptor below {_FD_SETSIZE}, and all of those are in use")


def _errno_of(text: str) -> int:
    """Map libnftables' error text (strerror) to an errno; only those that callers distinguish."""
    known = (errno.ENOENT, errno.EEXIST, errno.EPERM, errno.EBUSY)
    return next((number for number in known if os.strerror(number) in text), errno.EINVAL)


def _load() -> ctypes.CDLL:
    library = ctypes.CDLL("libnftables.so.1")
    context, text, flag = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint
    for name, result, arguments in (
        ("nft_ctx_new", context, [ctypes.c_uint32]),
        ("nft_ctx_free", None, [context]),
        ("nft_ctx_buffer_output", ctypes.c_int, [context]),
        ("nft_ctx_buffer_error", ctypes.c_int, [context]),
        ("nft_ctx_get_output_buffer", text, [context]),
        ("nft_ctx_get_error_buffer", text, [context]),
        ("nft_ctx_output_set_flags", None, [context, flag]),
        ("nft_run_cmd_from_buffer", ctypes.c_int, [context, text]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library

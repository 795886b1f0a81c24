"""Starts writeback of a file's pages, so that a later fdatasync(2) has little left to write.

Source: sync_file_range(2), whose SYNC_FILE_RANGE_WRITE starts writeback without waiting for it.
"""

from __future__ import annotations

import ctypes
import errno
import os

_SYNC_FILE_RANGE_WRITE = 2

_libc = ctypes.CDLL(None, use_errno=True)


def start_writeback(descriptor: int, offset: int, length: int) -> None:
    """Start writeback of `length` bytes at `offset`. Not a guarantee of durability; a no-op where it is not
    supported."""
    start, size = ctypes.c_int64(offset), ctypes.c_int64(length)
    if _libc.sync_file_range(descriptor, start, size, _SYNC_FILE_RANGE_WRITE) < 0:
        code = ctypes.get_errno()
        if code not in (errno.ENOSYS, errno.ESPIPE, errno.EINVAL, errno.EOPNOTSUPP):
            raise OSError(code, os.strerror(code))

"""Telling the kernel to begin writing a file's pages, so that a later fdatasync(2) finds little to do.

Source: sync_file_range(2), whose SYNC_FILE_RANGE_WRITE starts the writing and does not wait for it.
"""

from __future__ import annotations

import ctypes
import errno
import os

_SYNC_FILE_RANGE_WRITE = 2

_libc = ctypes.CDLL(None, use_errno=True)


def start_writeback(descriptor: int, offset: int, length: int) -> None:
    """Start writing `length` bytes at `offset`. Nothing is durable by this, and file systems without it do nothing."""
    start, size = ctypes.c_int64(offset), ctypes.c_int64(length)
    if _libc.sync_file_range(descriptor, start, size, _SYNC_FILE_RANGE_WRITE) < 0:
        code = ctypes.get_errno()
        if code not in (errno.ENOSYS, errno.ESPIPE, errno.EINVAL, errno.EOPNOTSUPP):
            raise OSError(code, os.strerror(code))

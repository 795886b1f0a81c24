"""Loop devices (loop(4)): attach files as read-only block devices that are detached with their last user."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from pathlib import Path

_LOOP_CTL_GET_FREE = 0x4C82
_LOOP_CONFIGURE = 0x4C0A
_LO_FLAGS_READ_ONLY, _LO_FLAGS_AUTOCLEAR = 1, 4
_ATTEMPTS = 64

# struct loop_config: fd, block size, struct loop_info64 (flags and file name set), 64 reserved bytes.
_CONFIG = struct.Struct("=II 40x 12x I 64s 64x 32x 16x 64x")


def attach_loop(path: Path) -> tuple[int, str]:
    """Attach the file at `path` as a read-only block device. Returns an open descriptor and the name in /dev.

    LO_FLAGS_AUTOCLEAR: the kernel detaches it once the descriptor is closed and nothing has it mounted.
    """
    backing = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        config = _CONFIG.pack(backing, 0, _LO_FLAGS_READ_ONLY | _LO_FLAGS_AUTOCLEAR, os.fsencode(path)[-63:])
        control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
        try:
            return _configure_free(control, config)
        finally:
            os.close(control)
    finally:
        os.close(backing)


def _configure_free(control: int, config: bytes) -> tuple[int, str]:
    """Configure a free device. Retries: another process may take the same device first."""
    for _ in range(_ATTEMPTS):
        name = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
        device = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(device, _LOOP_CONFIGURE, config)
        except OSError as error:
            os.close(device)
            if error.errno != errno.EBUSY:
                raise
        else:
            return device, name
    raise OSError(errno.EBUSY, "other processes took every free loop device", "/dev/loop-control")

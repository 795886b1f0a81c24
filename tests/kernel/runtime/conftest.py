"""A Runtime for each OCI runtime that is installed, over a busybox root file system."""

from support.boxes import boxed, rootfs

__all__ = ["boxed", "rootfs"]

"""The mount table and mount options as text."""

from __future__ import annotations

from pathlib import Path

import pytest

from havre.linux.mounts import (
    MS_BIND,
    MS_NODEV,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_SHARED,
    Options,
    parse_mountinfo,
    parse_options,
)

TABLE = r"""
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
40 27 0:50 /some\040dir /mnt/a\040b\134c\012d ro,nosuid shared:7 master:2 - overlay over\011lay rw,lowerdir=/a:/b
41 27 0:51 / /empty rw -  none rw
""".lstrip("\n")


def test_the_mount_table_is_read() -> None:
    proc, root, odd, _ = parse_mountinfo(TABLE)
    assert (proc.id, proc.parent, proc.device, proc.fstype, proc.source) == (22, 27, "0:21", "proc", "proc")
    assert (root.target, root.options, root.super_options) == (Path("/"), "rw,relatime", "rw,discard")
    assert (odd.root, odd.target, odd.source) == ("/some dir", Path("/mnt/a b\\c\nd"), "over\tlay")
    assert odd.super_options == "rw,lowerdir=/a:/b"


@pytest.mark.parametrize(
    ("text", "flags", "data", "propagation"),
    [
        ("", 0, "", ()),
        ("defaults", 0, "", ()),
        ("ro,nosuid,size=1m,uid=1000", MS_RDONLY | MS_NOSUID, "size=1m,uid=1000", ()),
        ("ro,nodev,rw", MS_NODEV, "", ()),
        ("rbind,rshared", MS_BIND | MS_REC, "", (MS_SHARED | MS_REC,)),
        ("bind,private,,", MS_BIND, "", (MS_PRIVATE,)),
        ("addr=10.0.0.1,rw,nfsvers=4", 0, "addr=10.0.0.1,nfsvers=4", ()),
    ],
)
def test_options_are_sorted_by_who_reads_them(text: str, flags: int, data: str, propagation: tuple[int, ...]) -> None:
    assert parse_options(text) == Options(flags, data, propagation)

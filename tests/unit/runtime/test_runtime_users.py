"""Names resolved against a hostile root file system's own files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from havre.errors import InvalidInput
from havre.runtime.plan import User
from havre.runtime.users import MAX_FILE, resolve_user

PASSWD = """# a comment
root:x:0:0:root:/root:/bin/sh
alice:x:1000:1000::/home/alice:/bin/sh
broken line
odd:x:notanumber:0::/:/bin/sh
huge:x:4294967296:0::/:/bin/sh
1234:x:77:78::/:/bin/sh
twice:x:5:5::/:
twice:x:6:6::/:
"""
GROUP = """root:x:0:root
users:x:100:bob,alice
extra:x:50:alice
alicegroup:x:1000:
empty:x:51
"""


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(PASSWD)
    (tmp_path / "etc/group").write_text(GROUP)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "add", "expected"),
    [
        ("", (), User(groups=(0,))),
        ("root", (), User(groups=(0,))),
        ("alice", (), User(uid=1000, gid=1000, groups=(100, 50))),
        ("1000", (), User(uid=1000, gid=1000, groups=(100, 50))),
        ("alice:extra", (), User(uid=1000, gid=50)),
        ("alice:7", (), User(uid=1000, gid=7)),
        ("alice:", (), User(uid=1000, gid=1000, groups=(100, 50))),
        (":users", (), User(uid=0, gid=100)),
        ("42", (), User(uid=42)),
        ("42:43", ("users", "9", "9"), User(uid=42, gid=43, groups=(100, 9))),
        ("1234", (), User(uid=77, gid=78)),
        ("twice", (), User(uid=5, gid=5)),
    ],
)
def test_who(rootfs: Path, text: str, add: tuple[str, ...], expected: User) -> None:
    assert resolve_user(rootfs, text, add) == expected


@pytest.mark.parametrize(
    ("text", "add", "words"),
    [
        ("nobody", (), "unable to find user nobody: no matching entries in passwd file"),
        ("odd", (), "unable to find user odd: no matching entries in passwd file"),
        ("0:nogroup", (), "unable to find group nogroup: no matching entries in group file"),
        ("0", ("nogroup",), "Unable to find group nogroup: no matching entries in group file"),
        ("4294967296", (), "uids and gids must be in range 0-2147483647"),
        ("2147483648", (), "uids and gids must be in range 0-2147483647"),
        ("-1", (), "uids and gids must be in range 0-2147483647"),
        ("0:4294967296", (), "uids and gids must be in range 0-2147483647"),
        ("huge", (), "unable to find user huge"),
        ("\N{SUPERSCRIPT TWO}", (), "unable to find user"),
    ],
)
def test_who_not(rootfs: Path, text: str, add: tuple[str, ...], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        resolve_user(rootfs, text, add)


def test_no_files_at_all(tmp_path: Path) -> None:
    assert resolve_user(tmp_path, "") == User()
    assert resolve_user(tmp_path, "5:6") == User(uid=5, gid=6)
    with pytest.raises(InvalidInput):
        resolve_user(tmp_path, "root")


def test_links_do_not_lead_out(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mallory:x:666:666::/:\n")
    rootfs = tmp_path / "rootfs"
    (rootfs / "etc").mkdir(parents=True)
    for target in (outside, "../../outside", "/proc/self/fd/0"):
        (rootfs / "etc/passwd").symlink_to(target)
        with pytest.raises(InvalidInput):
            resolve_user(rootfs, "mallory")
        (rootfs / "etc/passwd").unlink()
    (rootfs / "real").write_text("mallory:x:7:7::/:\n")
    (rootfs / "etc/passwd").symlink_to("/real")
    assert resolve_user(rootfs, "mallory").uid == 7


def test_only_regular_files_of_a_bounded_size(rootfs: Path) -> None:
    (rootfs / "etc/passwd").unlink()
    os.mkfifo(rootfs / "etc/passwd")
    with pytest.raises(InvalidInput):
        resolve_user(rootfs, "alice")
    (rootfs / "etc/passwd").unlink()
    with (rootfs / "etc/passwd").open("wb") as file:
        file.truncate(MAX_FILE + 1)
    with pytest.raises(InvalidInput, match="larger"):
        resolve_user(rootfs, "alice")

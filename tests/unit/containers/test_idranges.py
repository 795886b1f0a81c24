"""Ranges of user IDs: what is read from the files of subuid(5), and who gets which."""

from __future__ import annotations

import grp
import pwd
from pathlib import Path
from types import SimpleNamespace

import pytest

from havre.containers.container import Run
from havre.containers.surroundings import idranges
from havre.containers.surroundings.idranges import IdRanges, check_namespaces, next_free, read_remap
from havre.errors import Conflict, InvalidInput
from havre.linux import accounts
from havre.linux.idmap import OVERFLOW, IdRange
from havre.wire.config import HostConfig
from support.rows import container_row

PEOPLE = {"ann": 1001, "bob": 1002}
REMAP = IdRange(100_000, 200_000, 65_536)


def _refuse(tool: str, *arguments: str) -> None:
    raise OSError(1, f"{tool}: refused")


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "subuid").write_text("containers:1000000:196608\nann:100000:65536\nann:300000:10\n1002:400000:1000\n")
    (tmp_path / "subgid").write_text("containers:2000000:131072\n# a word\nann:200000:70000\nbob:500000:2000\n")
    monkeypatch.setattr(idranges, "_SUBUID", tmp_path / "subuid")
    monkeypatch.setattr(idranges, "_SUBGID", tmp_path / "subgid")
    monkeypatch.setattr(accounts, "_run", _refuse)  # nothing here may touch the host's users
    names = {number: name for name, number in PEOPLE.items()}
    for module, function, prefix in ((pwd, "getpw", "pw"), (grp, "getgr", "gr")):
        number = "uid" if prefix == "pw" else "gid"

        def entry(name: str, prefix: str = prefix, number: str = number) -> SimpleNamespace:
            return SimpleNamespace(**{f"{prefix}_name": name, f"{prefix}_{number}": PEOPLE[name]})

        monkeypatch.setattr(module, f"{function}nam", entry)
        monkeypatch.setattr(module, f"{function}{number}", lambda asked, entry=entry: entry(names[asked]))


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ([], 100_000),
        ([("a", 1_000_000, 65_536)], 100_000),
        ([("b", 165_536, 1000), ("a", 100_000, 65_536)], 166_536),
        ([("a", 100_001, 10)], 100_011),
        ([("a", 1, 1_000_000)], 1_000_001),
    ],
)
def test_the_first_ids_that_nobody_has(ranges: list[tuple[str, int, int]], expected: int) -> None:
    assert next_free(ranges) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("ann", REMAP),
        ("1001", REMAP),
        ("ann:ann", REMAP),
        ("1001:1001", REMAP),
        ("bob", IdRange(400_000, 500_000, 1000)),
        ("ann:bob", IdRange(100_000, 500_000, 2000)),
    ],
)
def test_the_first_range_of_user_and_group(text: str, expected: IdRange | None) -> None:
    assert read_remap(text) == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("carl", 'there is no user "carl"'),
        ("9", 'there is no user "9"'),
        ("ann:carl", 'there is no group "carl"'),
        ("default", "making the user dockremap and its ranges failed: useradd: refused"),
        (":ann", "invalid user/group specification"),
        ("ann:", "invalid user/group specification"),
        ("a:b:c", "invalid user/group specification"),
    ],
)
def test_what_names_no_range(text: str, problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem):
        read_remap(text)


def test_docker_s_user_needs_no_account(tmp_path: Path) -> None:
    for name in ("subuid", "subgid"):
        (tmp_path / name).write_text("dockremap:700000:65536\n")
    assert read_remap("default") == IdRange(700_000, 700_000, 65_536)


def test_docker_s_user_is_made_with_the_first_ranges_that_are_free(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, ...]] = []
    monkeypatch.setattr(accounts, "_run", lambda *words: made.append(words))
    with pytest.raises(InvalidInput, match="no subuid ranges found"):  # as nothing was made
        read_remap("default")
    assert [words[0] for words in made] == ["useradd", "usermod", "usermod"]
    assert made[1:] == [
        ("usermod", "--add-subuids", "165536-231071", "dockremap"),
        ("usermod", "--add-subgids", "100000-165535", "dockremap"),
    ]


def test_no_two_containers_have_the_same_range_of_their_own() -> None:
    first, second = IdRange(1_000_000, 2_000_000, 65_536), IdRange(1_065_536, 2_065_536, 65_536)
    ranges = IdRanges(REMAP)
    assert ranges.own([]) == first
    assert ranges.own([first]) == second
    assert ranges.own([second]) == first
    assert IdRanges(IdRange(1_000_000, 5_000_000, 5)).own([]) == second, "the daemon's is one of them"
    with pytest.raises(Conflict, match="every range of 65536 IDs of the user containers is taken"):
        ranges.own([first, second])


def test_who_has_which() -> None:
    own = IdRange(1, 2, 3)

    def of(mode: str, ids: IdRange | None, remap: IdRange | None) -> IdRange | None:
        host = HostConfig(userns_mode=mode)
        return IdRanges(remap).of(container_row(host_config=host, run=Run(ids=ids)))

    assert of("", None, REMAP) == REMAP
    assert of("", REMAP, None) is None
    assert of("host", REMAP, REMAP) is None
    assert of("auto", own, REMAP) == own


def test_what_only_the_host_s_root_may() -> None:
    check_namespaces(HostConfig(network_mode="none", pid_mode="container:c", ipc_mode="shareable", uts_mode="host"))
    for host in (HostConfig(privileged=True), *(HostConfig(**{f"{kind}_mode": "host"}) for kind in ("network", "pid"))):
        with pytest.raises(InvalidInput, match="namespace"):
            check_namespaces(host)


def test_owners_inside_and_outside() -> None:
    ids = IdRange(100, 200, 10)
    assert ids.outside(0, 9) == (100, 209)
    assert ids.inside(*ids.outside(3, 4)) == (3, 4)
    assert ids.outside(10, 5000) == (109, 209), "another range's IDs are never given"
    assert ids.inside(99, 210) == (OVERFLOW, OVERFLOW), "who is out of range is nobody"


def test_capabilities_of_files_inside_and_outside() -> None:
    ids = IdRange(100_000, 200_000, 10)
    plain = bytes.fromhex("01000002 00200000 00000000 00000000 00000000")
    rooted = bytes.fromhex("01000003 00200000 00000000 00000000 00000000 a0860100")
    assert ids.capability_outside(plain) == rooted
    assert ids.capability_inside(rooted) == plain
    for other in (b"", plain[:12], rooted[:-1] + b"\1"):  # nothing that counts inside: the kernel's to judge
        assert ids.capability_outside(other) == other
        assert ids.capability_inside(other) == other

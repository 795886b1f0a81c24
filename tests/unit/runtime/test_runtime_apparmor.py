"""AppArmor: which profile a container gets, what ours denies, and how it gets into the kernel (a stand-in here)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from havre.errors import Failed, InvalidInput
from havre.runtime.apparmor import PROFILE, Profiles, choose_profile, host_profile, parse_loaded, render_profile


@pytest.mark.parametrize(
    ("asked", "privileged", "default", "chosen"),
    [
        ("", False, PROFILE, PROFILE),
        ("mine", False, PROFILE, "mine"),
        ("unconfined", False, PROFILE, "unconfined"),
        ("", True, PROFILE, "unconfined"),
        ("mine", True, PROFILE, "unconfined"),  # dockerd 26.1 ignores it, too
        ("mine", False, "", ""),
        ("", True, "", ""),
    ],
)
def test_the_profile_of_a_container(asked: str, privileged: bool, default: str, chosen: str) -> None:
    assert choose_profile(asked, privileged=privileged, default=default) == chosen


def test_a_host_without_apparmor_has_no_profile(tmp_path: Path) -> None:
    enabled = tmp_path / "enabled"
    assert host_profile(tmp_path, enabled) == ""
    enabled.write_text("N\n")
    assert host_profile(tmp_path, enabled) == ""
    enabled.write_text("Y\n")
    assert host_profile(tmp_path, enabled) == PROFILE
    assert host_profile(tmp_path / "no-securityfs", enabled) == ""


def test_names_of_loaded_profiles() -> None:
    assert parse_loaded("a (enforce)\nb//c (complain)\n/usr/bin/man (x) (enforce)\n") == {
        "a",
        "b//c",
        "/usr/bin/man (x)",
    }
    assert parse_loaded("") == set()


# -- what the profile denies, its patterns read as apparmor.d(5) describes them


def _regex(glob: str) -> str:
    words = {"**": ".*", "*": "[^/]*", "{": "(?:", "}": ")", ",": "|", ".": r"\."}
    return "".join(words.get(word, word) for word in re.findall(r"\[[^]]*\]|\*\*|.", glob))


def _denied(path: str, access: str) -> bool:
    rules = re.findall(r"^ *deny (/\S+) (\w+),$", render_profile("p"), re.MULTILINE)
    assert len(rules) >= 8
    return any(access in modes and re.fullmatch(_regex(glob), path) for glob, modes in rules)


@pytest.mark.parametrize(
    "path",
    [
        "/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/sysrq", "/proc/sys/kernel/modprobe",
        "/proc/sys/vm/panic_on_oom", "/proc/sys/fs/binfmt_misc/register", "/proc/sys/net/ipv4/ip_forward",
        "/proc/irq/1/x", "/proc/sys/kernelx/y", "/proc/bus/pci/00/00.0", "/proc/sysvipc/shm",
        "/proc/s/x", "/proc/kmsg", "/proc/mtrr",
        "/sys/kernel/uevent_helper", "/sys/power/state", "/sys/fs/bpf/x", "/sys/fs/cgroups/x", "/sys/fs/ext4/a/b",
        "/sys/devices/system/cpu/online", "/sys/module/x/parameters/y", "/sys/f/x",
    ],
)  # fmt: skip
def test_the_kernels_files_cannot_be_written(path: str) -> None:
    assert _denied(path, "w")
    assert _denied(path, "l")


@pytest.mark.parametrize(
    "path",
    [
        "/proc/1/attr/current", "/proc/4711/oom_score_adj", "/proc/sys/kernel/shmmax", "/proc/sys/kernel/shmall",
        "/sys/fs/cgroup/havre/cgroup.procs", "/sys/fs/cgroup/memory/limit", "/etc/passwd", "/srv/proc/sysrq-trigger",
    ],
)  # fmt: skip
def test_what_belongs_to_the_container_can_be_written(path: str) -> None:
    assert not _denied(path, "w")


def test_what_is_not_even_read() -> None:
    assert all(_denied(path, "r") for path in ("/proc/kcore", "/sys/firmware/acpi/tables/DSDT", "/proc/scsi/scsi"))
    assert not any(
        _denied(path, "r") for path in ("/proc/meminfo", "/sys/class/net/eth0/mtu", "/proc/sys/vm/swappiness")
    )


def test_every_peer_is_the_profile_itself() -> None:
    text = render_profile("docker-default")
    assert text.startswith("profile docker-default flags=")
    assert "NAME" not in text
    assert set(re.findall(r"peer=([^,\s]+)", text)) == {"docker-default"}


# -- loading


class Kernel:
    """A securityfs and an apparmor_parser which adds the profile on its input to the list, and keeps the text."""

    def __init__(self, directory: Path) -> None:
        self.list = directory / "profiles"
        self.list.write_text("")
        self.text = directory / "loaded"
        self.program = directory / "apparmor_parser"
        self._write(
            f"cat >{self.text}\n"
            f"name=$(sed -n 's/^profile \\([^ ]*\\).*/\\1/p' {self.text})\n"
            f'echo "$name (enforce)" >>{self.list}\n'
        )
        self.profiles = Profiles(directory, str(directory))

    def fail(self, words: str) -> None:
        self._write(f"cat >/dev/null; echo '{words}' >&2; exit 1\n")

    def _write(self, script: str) -> None:
        self.program.write_text("#!/bin/sh\n" + script)
        self.program.chmod(0o755)

    def loaded(self) -> list[str]:
        return self.list.read_text().split("\n")[:-1]


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return Kernel(tmp_path)


def test_ours_is_loaded_once_and_again_when_it_was_unloaded(kernel: Kernel) -> None:
    kernel.profiles.load(PROFILE)
    assert kernel.loaded() == [f"{PROFILE} (enforce)"]
    assert kernel.text.read_text() == render_profile(PROFILE)
    kernel.text.unlink()
    kernel.profiles.load(PROFILE)
    assert not kernel.text.exists()
    kernel.list.write_text("")
    kernel.profiles.load(PROFILE)
    assert kernel.loaded() == [f"{PROFILE} (enforce)"]


def test_an_earlier_releases_text_is_replaced(kernel: Kernel) -> None:
    kernel.list.write_text(f"{PROFILE} (enforce)\n")
    kernel.profiles.load(PROFILE)
    assert kernel.text.read_text() == render_profile(PROFILE)


def test_dockers_profile_is_ours_only_where_dockerd_has_not_loaded_it(kernel: Kernel) -> None:
    kernel.list.write_text("docker-default (enforce)\n")
    kernel.profiles.load("docker-default")
    assert not kernel.text.exists()
    kernel.list.write_text("")
    kernel.profiles.load("docker-default")
    assert kernel.text.read_text() == render_profile("docker-default")


def test_another_profile_must_be_there(kernel: Kernel) -> None:
    kernel.list.write_text("mine (complain)\n")
    kernel.profiles.load("mine")
    with pytest.raises(InvalidInput, match="unable to apply apparmor profile: yours is not loaded") as refused:
        kernel.profiles.load("yours")
    assert "apparmor_parser" in (refused.value.hint or "")


def test_no_profile_needs_nothing(tmp_path: Path) -> None:
    profiles = Profiles(tmp_path / "absent", str(tmp_path))
    profiles.load("unconfined")
    profiles.load("")


def test_without_the_parser_the_package_is_named(kernel: Kernel) -> None:
    kernel.program.unlink()
    with pytest.raises(Failed, match=f"{PROFILE} could not be loaded: apparmor_parser is not installed") as failed:
        kernel.profiles.load(PROFILE)
    assert "package apparmor" in (failed.value.hint or "")


def test_the_parsers_words_are_told_and_it_is_tried_again(kernel: Kernel) -> None:
    kernel.fail("syntax error, line 3")
    for _ in range(2):
        with pytest.raises(Failed, match="could not be loaded: syntax error, line 3"):
            kernel.profiles.load(PROFILE)

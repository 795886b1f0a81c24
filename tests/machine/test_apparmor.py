"""The profile of containers, on a kernel that enforces AppArmor."""

from __future__ import annotations

from support.machine import Machine

CURRENT = "cat /proc/self/attr/current"


def test_a_container_is_confined_by_havres_profile(host: Machine) -> None:
    assert host.out(f"havre run --rm busybox {CURRENT}") == "havre-default (enforce)"
    assert "havre-default (enforce)" in host.out("cat /sys/kernel/security/apparmor/profiles")


def test_mounts_and_kernel_settings_are_denied_to_capable_programs(host: Machine) -> None:
    mount = "havre run --rm --cap-add SYS_ADMIN {} busybox mount -t tmpfs none /tmp"
    assert host.run(mount.format("")).code != 0
    assert host.run(mount.format("--security-opt apparmor=unconfined")).code == 0


def test_privileged_and_unconfined_containers_have_no_profile(host: Machine) -> None:
    for option in ("--privileged", "--security-opt apparmor=unconfined"):
        assert host.out(f"havre run --rm {option} busybox {CURRENT}") == "unconfined"


def test_a_profile_that_is_not_loaded_is_named(host: Machine) -> None:
    refused = host.run("havre run --name absent --security-opt apparmor=no-such-profile busybox true")
    assert refused.code == 125
    assert "no-such-profile" in refused.err


def test_exec_has_the_containers_profile(host: Machine) -> None:
    host.out("havre run -d --name confined busybox sleep 600")
    assert host.out(f"havre exec confined {CURRENT}") == "havre-default (enforce)"

"""README's two commands and `make install`, as a newcomer types them on a Debian with systemd."""

from __future__ import annotations

from support.machine import Machine, Ran


def test_the_first_command_runs_two_containers(first_run: Ran) -> None:
    assert first_run.code == 0, first_run
    assert "Hello from a container of havre!" in first_run.out
    assert "PID 1     sh" in first_run.out


def test_the_installation_says_what_comes_next(installation: Ran) -> None:
    assert installation.code == 0, installation
    assert "Installed: /usr/local/bin/havre, /usr/local/bin/havred" in installation.out
    assert "systemctl status havre" in installation.out


def test_the_daemon_of_the_first_command_hands_over_to_the_service(host: Machine) -> None:
    assert host.out("systemctl show -P MainPID havre.service") == host.out("cat /run/havre/havred.pid")
    assert "hello:latest" in host.out("havre image ls --format '{{.Repository}}:{{.Tag}}'")


def test_the_units_have_no_faults(host: Machine) -> None:
    assert not host.out("systemd-analyze --man=no verify havre.service havre.socket 2>&1")
    assert host.out("systemctl is-enabled havre.service havre.socket").split() == ["enabled", "enabled"]


def test_docker_reaches_havre_by_its_usual_socket(host: Machine) -> None:
    assert host.out("docker run --rm busybox echo from docker") == "from docker"
    assert host.out("docker info --format '{{.DockerRootDir}}'") == "/var/lib/havre"


def test_members_of_the_group_need_no_sudo(host: Machine) -> None:
    host.out("useradd -m -G havre member; useradd -m stranger")
    assert host.out("runuser -u member -- havre run --rm busybox echo here") == "here"
    refused = host.run("runuser -u stranger -- havre ps")
    assert refused.code == 1
    assert "permission" in refused.err.lower()


def test_manual_pages_and_completion_are_found(host: Machine) -> None:
    found = host.out("ls /usr/local/share/man/man1/havre-run.1 /usr/local/share/man/man8/havred.8")
    assert len(found.split()) == 2
    assert "run" in host.out(
        "source /usr/local/share/bash-completion/completions/havre; complete -p havre && havre help"
    )


def test_the_system_is_checked_and_described_truthfully(host: Machine) -> None:
    assert host.run("havre system check").code == 0
    information = host.out("havre info --format '{{.CgroupVersion}} {{.CgroupDriver}} {{json .SecurityOptions}}'")
    assert information.startswith("2 ")
    assert "name=apparmor" in information

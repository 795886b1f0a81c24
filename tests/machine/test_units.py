"""The service as systemd drives it: activation, reload, restarts, kills, reboots."""

from __future__ import annotations

import json

from support.machine import Machine

PID = "systemctl show -P MainPID havre.service"


def test_the_socket_starts_the_daemon(host: Machine) -> None:
    host.out("systemctl stop havre.service")
    assert host.run("systemctl is-active havre.service").out.strip() == "inactive"
    assert host.out("curl -s --unix-socket /run/havre.sock http://d/_ping") == "OK"
    assert host.out("systemctl is-active havre.service") == "active"


def test_a_reload_reads_the_settings_anew_in_the_same_process(host: Machine) -> None:
    before = host.out(PID)
    host.write("/etc/havre/daemon.json", json.dumps({"labels": ["tier=test"]}))
    try:
        host.out("systemctl reload havre.service")
        host.until("havre info --format '{{.Labels}}' | grep -q tier=test", 20)
        assert host.out(PID) == before
    finally:
        host.out("rm /etc/havre/daemon.json; systemctl reload havre.service")
    host.until("! havre info --format '{{.Labels}}' | grep -q tier=test", 20)


def test_settings_that_cannot_be_read_are_told_by_the_unit(host: Machine) -> None:
    host.write("/etc/havre/daemon.json", '{"log-levle": "debug"}')
    try:
        assert host.run("systemctl restart havre.service").code != 0
        assert "log-levle" in host.out("journalctl -u havre.service -n 20 --no-pager")
    finally:
        host.out(
            "rm /etc/havre/daemon.json; systemctl reset-failed havre.service havre.socket\n"
            "systemctl start havre.service"
        )
    assert host.out("havre run --rm busybox echo again") == "again"


def test_containers_run_on_through_a_restart_of_the_daemon(host: Machine) -> None:
    host.out("havre run -d --name through busybox sh -c 'while sleep 0.2; do date +%s%N; done'")
    process = host.out("havre inspect -f '{{.State.Pid}}' through")
    host.out("systemctl restart havre.service")
    assert host.out("havre inspect -f '{{.State.Pid}} {{.State.Running}}' through") == f"{process} true"
    lines = int(host.out("havre logs through | wc -l"))
    host.until(f'[ "$(havre logs through | wc -l)" -gt {lines} ]', 20)


def test_systemd_restarts_a_daemon_that_was_killed(host: Machine) -> None:
    host.out("havre run -d --name survivor busybox sleep 600")
    process, before = host.out("havre inspect -f '{{.State.Pid}}' survivor"), host.out(PID)
    host.out(f"kill -KILL {before}")
    host.until(f'pid=$({PID}); [ "$pid" != 0 ] && [ "$pid" != {before} ] && systemctl is-active -q havre.service')
    assert host.out("havre inspect -f '{{.State.Pid}} {{.State.Running}}' survivor") == f"{process} true"


def test_systemd_that_reads_its_units_anew_disturbs_no_container(host: Machine) -> None:
    host.out("havre run -d --name steady -m 64m --cpus 0.5 --pids-limit 50 busybox sleep 600")
    look = (
        "havre exec steady sh -c 'cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max /sys/fs/cgroup/pids.max'; "
        "havre inspect -f '{{.State.Pid}} {{.State.Running}}' steady"
    )
    before = host.out(look)
    assert before.split()[:4] == ["67108864", "50000", "100000", "50"]
    host.out(
        "systemctl daemon-reload; systemctl daemon-reexec; systemctl set-property --runtime havre.service CPUWeight=50"
    )
    assert host.out(look) == before


def test_a_reboot_brings_back_what_shall_run(host: Machine) -> None:
    host.write(
        "/root/shop/compose.yaml",
        "services:\n"
        "  db: {image: busybox, init: true, command: sleep 600, restart: always}\n"
        "  web:\n"
        "    image: busybox\n"
        "    init: true\n"
        "    command: sleep 600\n"
        "    restart: always\n"
        "    depends_on: [db]\n",
    )
    host.out("cd /root/shop; havre compose up -d --quiet-pull")
    host.out(
        "havre run -d --init --name always --restart always -v kept:/data busybox "
        "sh -c 'date >>/data/starts; sleep 600'"
    )
    host.out("havre run -d --init --name stopped --restart unless-stopped busybox sleep 600; havre stop stopped")
    host.out("havre run -d --init --name never busybox sleep 600")
    host.out(
        "havre run -d --name graceful busybox "
        "sh -c 'trap \"echo asked to end; exit 3\" TERM; while :; do sleep 0.1; done'"
    )
    host.until("[ -s /var/lib/havre/volumes/kept/_data/starts ]", 20)
    asked = len(host.console)
    host.reboot()
    running = ["always", "shop-db-1", "shop-web-1"]
    for name in running:
        host.until(f'[ "$(havre inspect -f "{{{{.State.Status}}}}" {name})" = running ]')
    assert sorted(host.out("havre ps --format '{{.Names}}'").split()) == running
    assert host.out("wc -l </var/lib/havre/volumes/kept/_data/starts") == "2"
    assert "asked to end" in host.out("havre logs graceful")
    assert host.out("havre inspect -f '{{.State.ExitCode}}' graceful") == "3"
    starts = [host.out(f"havre inspect -f '{{{{.State.StartedAt}}}}' {name}") for name in ("shop-db-1", "shop-web-1")]
    assert starts == sorted(starts)
    assert "A stop job is running" not in host.console[asked:]
    host.out("cd /root/shop; havre compose down")

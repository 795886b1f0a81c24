"""Directives of dockerd 27 to 29 that concern the daemon as a whole: what they change, told or refused."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from support.engines import Havred, serving
from support.raw import ask
from support.waiting import until

_DEAF = ("busybox", "sh", "-c", "trap : TERM; echo ready; while :; do sleep 0.1; done")


def configured(folder: Path, values: dict[str, Any]) -> Havred:
    file = folder / "daemon.json"
    file.write_text(json.dumps(values))
    return Havred(["--config-file", str(file)])


@pytest.mark.parametrize("by_environment", [False, True])
def test_older_clients_can_be_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_environment: bool) -> None:
    if by_environment:
        monkeypatch.setenv("DOCKER_MIN_API_VERSION", "1.44")
    with serving(configured(tmp_path, {"min-api-version": "1.40" if by_environment else "1.44"})) as engine:
        older = ask(engine.socket, "GET", "/v1.43/info")
        words = "client version 1.43 is too old. Minimum supported API version is 1.44"
        assert (older.status, words in older.message) == (400, True)
        assert ask(engine.socket, "GET", "/v1.44/version").json["MinAPIVersion"] == "1.44"


def test_the_default_stop_timeout_is_for_containers_without_one(tmp_path: Path, archive: Path) -> None:
    with serving(configured(tmp_path, {"default-stop-timeout": 0}), archive) as engine:
        engine.out("run", "-d", "--name", "deaf", *_DEAF)
        until(lambda: engine.out("logs", "deaf") == "ready", "the trap to be set")
        began = time.monotonic()
        engine.out("stop", "deaf")
        assert time.monotonic() - began < 5
        assert engine.out("inspect", "-f", "{{.State.ExitCode}}", "deaf") == "137"
        (tmp_path / "daemon.json").write_text('{"default-stop-timeout": 1}')
        os.kill(engine.pid, signal.SIGHUP)
        until(lambda: "Reloaded configuration" in engine.log.read_text(), "the reload")
        engine.out("start", "deaf")
        until(lambda: engine.out("logs", "deaf").count("ready") == 2, "the trap to be set again")
        began = time.monotonic()
        engine.out("stop", "deaf")
        assert 1 <= time.monotonic() - began < 6


def test_the_host_has_the_addresses_given(tmp_path: Path, archive: Path) -> None:
    with serving(configured(tmp_path, {"host-gateway-ips": ["10.96.0.9", "fd00:96::9"]}), archive) as engine:
        hosts = engine.out(
            "run", "--rm", "--network", "host", "--add-host", "up:host-gateway", "busybox", "cat", "/etc/hosts"
        )
    assert [line.split() for line in hosts.splitlines() if "up" in line.split()] == [
        ["10.96.0.9", "up"],
        ["fd00:96::9", "up"],
    ]


def test_what_has_no_effect_is_told_and_what_would_mislead_is_refused(tmp_path: Path) -> None:
    silent = {"allow-direct-routing": True, "bridge-accept-fwmark": "1", "allow-nondistributable-artifacts": ["x"]}
    with serving(configured(tmp_path, {**silent, "features": {"containerd-snapshotter": True}})) as engine:
        log = engine.log.read_text()
        assert all(f"the directive {key} has no effect here" in log for key in silent)
        assert "the feature containerd-snapshotter has no effect here" in log
    for values, words in (
        ({"firewall-backend": "iptables"}, "firewall-backend: iptables is not supported: rules are those of nftables"),
        ({"nri-opts": {"enable": True}}, "nri-opts: enable is not supported: there is no Node Resource Interface"),
    ):
        engine = configured(tmp_path, values)
        try:
            with pytest.raises(AssertionError, match=words):
                engine.open()
        finally:
            engine.close()

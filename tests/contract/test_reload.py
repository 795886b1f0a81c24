"""SIGHUP: what changes without a restart, and what is told of it."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.engines import HAVRED, Engine
from support.waiting import until


@pytest.fixture
def file(havred: Engine) -> Iterator[Path]:
    path = havred.root / "daemon.json"
    yield path
    path.write_text("{}")
    reload(havred)
    until(lambda: havred.out("info", "-f", "{{len .Labels}}") == "0", "the old configuration")


def reload(engine: Engine) -> None:
    subprocess.run(["kill", "-HUP", str(engine.pid)], check=True)


def test_what_a_reload_changes(havred: Engine, file: Path) -> None:
    fresh = {
        "debug": True,
        "labels": ["a=b"],
        "registry-mirrors": ["https://mirror.example"],
        "insecure-registries": ["10.11.0.0/16"],
    }
    file.write_text(json.dumps(fresh))
    with subprocess.Popen(
        ["docker", "events", "--since", "0", "--filter", "type=daemon", "--format", "{{json .}}"],
        env=havred.env,
        stdout=subprocess.PIPE,
        text=True,
    ) as events:
        reload(havred)
        assert events.stdout is not None
        for line in events.stdout:
            told = json.loads(line)
            if told["Action"] == "reload" and told["Actor"]["Attributes"]["labels"] == '["a=b"]':
                break
        events.send_signal(signal.SIGTERM)
    attributes = told["Actor"]["Attributes"]
    assert attributes["debug"] == "true"
    assert attributes["registry-mirrors"] == '["https://mirror.example"]'
    info = json.loads(havred.out("info", "-f", "{{json .}}"))
    assert info["Debug"] is True
    assert info["Labels"] == ["a=b"]
    assert info["RegistryConfig"]["Mirrors"] == ["https://mirror.example"]
    assert "10.11.0.0/16" in info["RegistryConfig"]["InsecureRegistryCIDRs"]


def test_a_bad_file_changes_nothing(havred: Engine, file: Path) -> None:
    file.write_text('{"labels": ["kept=1"]}')
    reload(havred)
    until(lambda: havred.out("info", "-f", "{{json .Labels}}") == '["kept=1"]', "the label")
    file.write_text('{"labels": ["new=1"], "dns": ["odd"]}')
    reload(havred)
    refused = "configuration not reloaded: unable to configure the daemon: dns: odd is not an ip address"
    until(lambda: refused in havred.log.read_text(), "the refusal in the log")
    assert havred.out("info", "-f", "{{json .Labels}}") == '["kept=1"]'


def test_a_bad_file_is_refused_at_the_start(tmp_path: Path) -> None:
    file = tmp_path / "daemon.json"
    file.write_text('{"log-driver": "odd"}')
    roots = ("--data-root", str(tmp_path / "d"), "--exec-root", str(tmp_path / "e"), "-H", f"unix://{tmp_path}/s")
    done = subprocess.run([HAVRED, "--config-file", file, *roots], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert 'log-driver: error looking up logging plugin odd: plugin "odd" not found' in done.stderr

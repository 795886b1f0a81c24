"""`pre_start` hooks of compose 5: containers that run before a service's containers start."""

from __future__ import annotations

from pathlib import Path

from support.composing import Both
from support.registry import real_registry

_APP = """
name: {name}
services:
  db: {{image: busybox, init: true, command: sleep 1000, stop_grace_period: 0s}}
  app:
    image: busybox
    init: true
    stop_grace_period: 0s
    command: sh -c "cat /data/log; sleep 1000"
    scale: 2
    user: "5"
    environment: {{A: service, B: service}}
    volumes: ["data:/data"]
    depends_on: [db]
    pre_start:
      - {{command: sh -c "rm -f /data/log; chmod 777 /data", user: root}}
      - command: ["sh", "-c", "echo $$A $$B $$(id -u) $$(pwd) >> /data/log; nslookup db"]
        working_dir: /tmp
        environment: {{B: hook}}
      - {{command: sh -c "echo again >> /data/log; exit {code}"}}
volumes: {{data: }}
"""


def _hooks(ours: Both) -> list[str]:
    """IDs of the hooks' containers that are left."""
    wanted = f"label=com.docker.compose.project={ours.name}"
    flags = ("--filter", wanted, "--filter", "label=com.docker.compose.hook=pre_start")
    return ours.engine.out("ps", "-aq", *flags).split()


def _log(ours: Both) -> str:
    return ours.havre("exec", "-T", "app", "cat", "/data/log").stdout


def test_hooks_run_in_order_before_the_first_container_starts(ours: Both) -> None:
    ours.write(_APP.format(name=ours.name, code=0))
    ours.havre("up", "-d")
    expected = "service hook 5 /tmp\nagain\n"
    assert _log(ours) == expected
    logs = ours.havre("logs", "--no-log-prefix", "app").stdout
    assert sorted(logs.splitlines()) == sorted(expected.splitlines() * 2)
    assert not _hooks(ours)
    ours.havre("exec", "-T", "app", "sh", "-c", "echo kept > /data/log")
    before = ours.containers()
    ours.havre("up", "-d", "--scale", "app=3")
    assert _log(ours) == "kept\n", "a hook ran although containers of the service ran"
    assert before.items() <= ours.containers().items()
    ours.havre("stop")
    ours.havre("start")
    assert _log(ours) == expected
    ours.havre("exec", "-T", "app", "sh", "-c", "echo kept > /data/log")
    ours.havre("up", "-d", "--force-recreate")
    assert _log(ours) == expected


def test_a_hook_that_fails_lets_nothing_start_and_is_kept(ours: Both) -> None:
    ours.write(_APP.format(name=ours.name, code=3).replace("exit 3", "echo why >&2; exit 3"))
    told = ours.havre("up", "-d", check=1).stderr
    (hook,) = _hooks(ours)
    assert f'service "app" pre_start[2] exited with code 3: why (hook container {hook} retained' in told
    assert ours.havre("ps", "-q", "app").stdout == ""
    assert "app-1" in ours.containers()
    assert ours.engine.docker("logs", hook).stderr == "why\n"
    ours.havre("up", "-d", check=1)
    (again,) = _hooks(ours)
    assert again != hook
    ours.havre("down", "-t", "0")
    assert not _hooks(ours)


def test_a_hook_for_each_container(ours: Both) -> None:
    ours.write(f"""
name: {ours.name}
services:
  app:
    image: busybox
    init: true
    stop_grace_period: 0s
    command: sleep 1000
    scale: 2
    volumes: [/own]
    pre_start: [{{command: touch /own/made, per_replica: true}}, {{command: touch /own/first}}]
""")
    ours.havre("up", "-d", "--scale", "app=3")
    found = [ours.havre("exec", "-T", "--index", str(n), "app", "ls", "/own").stdout.split() for n in (1, 2, 3)]
    assert found == [["first", "made"], ["made"], ["made"]]
    ours.havre("up", "-d", "--scale", "app=4")
    assert ours.havre("exec", "-T", "--index", "4", "app", "ls", "/own").stdout.split() == ["made"]


def test_a_rollout_runs_the_hooks_once(ours: Both) -> None:
    text = _APP.format(name=ours.name, code=0).replace("rm -f /data/log; ", "")
    ours.write(text)
    ours.havre("up", "-d")
    ours.write(text.replace("A: service", "A: changed"))
    ours.havre("up", "--rollout")
    assert _log(ours) == "service hook 5 /tmp\nagain\nchanged hook 5 /tmp\nagain\n"


def test_images_of_hooks_are_pulled(ours: Both, tmp_path: Path) -> None:
    with real_registry(tmp_path / "registry", inside=ours.engine.inside) as registry:
        image = f"{registry.host}/hook:1"
        ours.engine.docker("build", "-t", image, "-", stdin="FROM busybox\nUSER 7\nCMD id -u > /v/user\n", check=0)
        ours.engine.docker("push", image, check=0)
        ours.engine.docker("rmi", image, check=0)
        ours.write(f"""
name: {ours.name}
services:
  app:
    image: busybox
    command: cat /v/user
    user: "5"
    volumes: [{{type: tmpfs, target: /t}}, "{tmp_path}/v:/v"]
    pre_start: [{{image: "{image}"}}]
""")
        (tmp_path / "v").mkdir()
        (tmp_path / "v").chmod(0o777)
        assert ours.havre("config", "--images").stdout.split() == ["busybox", image]
        assert "no such image" in ours.havre("up", "--pull", "never", check=1).stderr.lower()
        ran = ours.havre("up", "--no-log-prefix")
        assert ran.stdout == "7\n"
        assert ran.stderr.count("exited with code 0") == 1
        ours.havre("down", "-t", "0")
        ours.engine.docker("rmi", image, check=0)
        ours.havre("pull", "--policy", "missing")
        assert ours.engine.out("images", "-q", image)

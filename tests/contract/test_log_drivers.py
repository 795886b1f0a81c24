"""Log drivers: what they keep, how files rotate without losing or doubling a line, what `logs` can read."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from support.engines import Engine
from support.waiting import until

LINES = 100_000
COUNT = ("busybox", "sh", "-c", f"exec seq 1 {LINES}")
ALL = [str(number) for number in range(1, LINES + 1)]


def finished(engine: Engine, name: str) -> None:
    assert engine.out("wait", name) == "0"


@pytest.fixture(autouse=True)
def counter(request: pytest.FixtureRequest) -> Iterator[None]:
    """The container of a test goes, however it ends."""
    yield
    names = {"engine", "havred"} & set(request.fixturenames)
    request.getfixturevalue(names.pop()).docker("rm", "-f", "count")


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_rotation_neither_loses_nor_doubles_a_line(engine: Engine, driver: str) -> None:
    options = ("--log-driver", driver, "--log-opt", "max-size=700k", "--log-opt", "max-file=50")
    engine.out("run", "-d", "--name", "count", *options, "--log-opt", "compress=true", *COUNT)
    finished(engine, "count")
    assert engine.out("logs", "count").splitlines() == ALL
    assert engine.out("logs", "--tail", "40000", "count").splitlines() == ALL[-40000:]


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_old_files_go(engine: Engine, driver: str) -> None:
    options = ("--log-driver", driver, "--log-opt", "max-size=200k", "--log-opt", "max-file=3")
    engine.out("run", "-d", "--name", "count", *options, *COUNT)
    finished(engine, "count")
    seen = engine.out("logs", "count").splitlines()
    assert len(seen) < LINES
    assert seen == ALL[-len(seen) :]
    if driver == "json-file":
        written = Path(engine.out("inspect", "-f", "{{.LogPath}}", "count"))
        assert len(list(written.parent.glob(written.name + "*"))) <= 3


NON_BLOCKING = ("--log-opt", "mode=non-blocking", "--log-opt", "max-buffer-size=4k")


def test_a_container_that_does_not_wait_loses_lines(engine: Engine) -> None:
    """Whole ones, and none that comes when there is room."""
    script = "seq 1 100; usleep 300000; seq 101 1000000; usleep 300000; echo end"
    engine.out("run", "-d", "--name", "count", *NON_BLOCKING, "busybox", "sh", "-c", script)
    finished(engine, "count")
    *seen, last = engine.out("logs", "count").splitlines()
    numbers = [int(line) for line in seen]
    assert last == "end"
    assert numbers[:100] == list(range(1, 101))
    assert numbers == sorted(set(numbers))
    assert len(numbers) < 1_000_000


def test_since_and_until_among_many_lines(engine: Engine) -> None:
    """With the very times that `logs -t` shows."""
    engine.out("run", "-d", "--name", "count", *COUNT)
    finished(engine, "count")
    timed = engine.out("logs", "-t", "count").splitlines()
    assert [line.split()[1] for line in timed] == ALL
    since, until_ = timed[40_000].split()[0], timed[60_000].split()[0]
    expected = [line for line in timed if since <= line.split()[0] <= until_]
    assert engine.out("logs", "-t", "--since", since, "--until", until_, "count").splitlines() == expected


def test_the_file_is_dockers(engine: Engine) -> None:
    """What tools find behind the engine's back."""
    chosen = ("labels=x,none", "labels-regex=^z", "env=A", "tag={{.Name}}/{{.ImageName}}")
    options = [word for option in chosen for word in ("--log-opt", option)]
    script = (
        r"""printf 'hi <b> & "q" \\ \t\303\244\377\342\200\250\n';"""
        r"""printf 'par'; sleep 0.2; printf 'tial\r\n'; seq 4000"""
    )
    named = ("-l", "x=1 2", "-l", "zz=3", "-e", "A=b", "-l", "y=4")
    engine.out("run", "--name", "count", *named, *options, "busybox", "sh", "-c", script)
    written = Path(engine.out("inspect", "-f", "{{.LogPath}}", "count"))
    assert written.name == engine.out("inspect", "-f", "{{.Id}}", "count") + "-json.log"
    lines = written.read_bytes().splitlines()
    attrs = b'"attrs":{"A":"b","tag":"count/busybox","x":"1 2","zz":"3"}'
    log, _, moment = lines[0].partition(b',"time":"')
    said = rb'{"log":"hi \u003cb\u003e \u0026 \"q\" \\ \u0009' + b"\xc3\xa4" + rb'\ufffd\u2028\n","stream":"stdout",'
    assert log == said + attrs
    assert re.fullmatch(rb'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,9}Z"}', moment)
    records = [json.loads(line) for line in lines]
    assert records[1]["log"] == "partial\r\n"
    assert [record["log"] for record in records[2:]] == [f"{number}\n" for number in range(1, 4001)]
    shown = engine.out("logs", "--details", "--tail", "1", "count")
    assert shown == "A=b,tag=count%2Fbusybox,x=1+2,zz=3 4000"
    timed = engine.out("logs", "--details", "-t", "--tail", "1", "count")
    assert timed.endswith("Z " + shown)


def test_tags_are_templates_and_patterns_res(engine: Engine) -> None:
    tag = (
        '{{.ImageName | upper}}|{{printf "%.5s" .ID}}|{{if .ContainerArgs}}{{join .ContainerArgs "+"}}{{end}}|'
        '{{index .ContainerLabels "ab"}}|{{range .ContainerEnv}}{{slice . 0 2}}{{end}}|{{.ExtraAttributes nil}}|'
        "{{.Hostname}}|{{json .ContainerLabels}}|{{json .ContainerCreated}}|{{.LogPath}}|{{.DaemonName}}"
    )
    options = {"labels-regex": r"(?i)^\pL[[:alpha:]]\z", "tag": tag}
    chosen = [word for option in options.items() for word in ("--log-opt", "=".join(option))]
    named = ("-l", "ab=1", "-l", "abc=2", "-l", "Ä1=3", "-e", "PATH=/bin")
    engine.out("create", "--name", "count", *named, *chosen, "busybox", "echo", "x")
    engine.out("start", "-a", "count")
    said = json.loads(engine.out("inspect", "count"))[0]
    record = json.loads(Path(said["LogPath"]).read_bytes().splitlines()[0])
    labels = json.dumps(said["Config"]["Labels"], ensure_ascii=False, separators=(",", ":"))
    assert record["attrs"]["tag"].split("|") == [
        *("BUSYBOX", said["Id"][:5], "x", "1", "PA", "map[ab:1]", os.uname().nodename, labels),
        *(f'"{said["Created"]}"', said["LogPath"], "docker"),
    ]
    assert record["attrs"]["ab"] == "1"
    assert record["attrs"].keys() == {"tag", "ab"}


@pytest.mark.parametrize("form", ["", "rfc3164", "rfc5424", "rfc5424micro"])
def test_syslog(engine: Engine, tmp_path: Path, form: str) -> None:
    """To a server of the test's own, and what `logs` still knows of it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.settimeout(20)
        server.bind(str(tmp_path / "log"))
        options = (f"syslog-address=unixgram://{tmp_path}/log", "syslog-facility=local3", "tag=t/{{.Name}}")
        chosen = [word for option in (*options, f"syslog-format={form}") for word in ("--log-opt", option)]
        script = "echo hi there; echo; usleep 200000; printf end >&2"
        engine.out("run", "--name", "count", "--log-driver", "syslog", *chosen, "busybox", "sh", "-c", script)
        heads = {
            "": r"<158>\w{3} [ \d]\d \d\d:\d\d:\d\d t/count\[\d+\]: ",
            "rfc3164": r"<158>\w{3} [ \d]\d \d\d:\d\d:\d\d \S+ t/count\[\d+\]: ",
            "rfc5424": r"<158>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ \S+ t/count \d+ t/count - ",
            "rfc5424micro": r"<158>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z \S+ t/count \d+ t/count - ",
        }
        assert re.fullmatch(heads[form] + "hi there\n", server.recv(10000).decode())
        assert re.fullmatch(heads[form].replace("158", "155") + "end\n", server.recv(10000).decode())
        assert engine.docker("logs", "count", check=0).stdout.splitlines() == ["hi there", ""]
    assert engine.out("inspect", "-f", "{{.LogPath}}", "count") == ""


@pytest.mark.parametrize(
    ("driver", "options", "words"),
    [
        (
            "syslog",
            ("syslog-address=tcp://127.0.0.1:9",),
            "logging driver: dial tcp 127.0.0.1:9: connect: connection ref",
        ),
        ("syslog", ("syslog-address=odd://127.0.0.1:9",), "unsupported scheme: 'odd'"),
        ("syslog", ("syslog-facility=odd",), "invalid syslog facility"),
        ("journald", (), "failed to initialize logging driver: journald is not enabled on this host"),
        ("journald", ("odd=1",), "unknown log opt 'odd' for journald log driver"),
        ("json-file", ("tag={{.Odd}}",), "can't evaluate field Odd in type *logger.Info"),
        ("json-file", ("tag={{odd .ID}}",), 'logging driver: template: log-tag:1: function "odd" not defined'),
        (
            "syslog",
            ("syslog-address=udp://127.0.0.1:9", "tag={{.ID"),
            "logging driver: template: log-tag:1: unclosed action",
        ),
        ("json-file", ("labels-regex=(?=a)",), "error parsing regexp: invalid or unsupported Perl syntax: `(?=`"),
        ("json-file", ("mode=odd",), "logger: logging mode not supported: odd"),
        ("local", ("labels=x",), "unknown log opt 'labels' for log driver local"),
    ],
)
def test_drivers_that_cannot_be_set_up(engine: Engine, driver: str, options: tuple[str, ...], words: str) -> None:
    chosen = [word for option in options for word in ("--log-opt", option)]
    assert words in engine.docker("run", "--rm", "--log-driver", driver, *chosen, "busybox", "true", check=125).stderr


def test_a_log_without_a_cache(engine: Engine) -> None:
    options = ("--log-opt", "syslog-address=udp://127.0.0.1:9", "--log-opt", "cache-disabled=true")
    engine.out("run", "--name", "count", "--log-driver", "syslog", *options, "busybox", "true")
    done = engine.docker("logs", "count", check=1)
    assert "configured logging driver does not support reading" in done.stderr


def test_none_keeps_nothing(engine: Engine) -> None:
    engine.out("run", "--name", "silent", "--log-driver", "none", "busybox", "echo", "x")
    done = engine.docker("logs", "silent", check=1)
    assert "configured logging driver does not support reading" in done.stderr
    engine.out("rm", "silent")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--log-opt", "odd=1"), "unknown log opt 'odd' for json-file log driver"),
        (("--log-opt", "max-size=odd"), "failed to initialize logging driver: invalid size: 'odd'"),
        (("--log-opt", "max-size=1m", "--log-opt", "max-file=0"), "max-file cannot be less than 1"),
        (("--log-opt", "compress=true"), "compress cannot be true when max-file is less than 2"),
    ],
)
def test_bad_options_are_refused(engine: Engine, options: tuple[str, ...], words: str) -> None:
    assert words in engine.docker("run", "--rm", *options, "busybox", "true", check=125).stderr


def test_rotation_while_daemons_come_and_go(havred: Engine) -> None:
    """Those who follow lose their connection, of a million lines the log loses none, nor doubles it."""
    options = ("--log-opt", "max-size=3m", "--log-opt", "max-file=100")
    script = "for i in $(seq 0 24); do seq $((i*40000+1)) $(((i+1)*40000)); usleep 100000; done"
    havred.out("run", "-d", "--name", "count", *options, "busybox", "sh", "-c", script)
    written = Path(havred.out("inspect", "-f", "{{.LogPath}}", "count"))
    for number in (1, 4, 8):

        def rotated(number: int = number) -> bool:
            return written.with_name(f"{written.name}.{number}").exists() or havred.out("ps", "-q") == ""

        until(rotated, "a rotation, or the end")
        havred.stop(signal.SIGKILL)
        havred.start()
    finished(havred, "count")
    assert havred.havre("logs", "count").stdout.splitlines() == [str(number) for number in range(1, 1_000_001)]


def test_a_follower_that_comes_late_gets_everything_once(havred: Engine) -> None:
    options = ("--log-opt", "max-size=100k", "--log-opt", "max-file=200", "--log-opt", "compress=true")
    script = "for i in $(seq 0 19); do seq $((i*1000+1)) $(((i+1)*1000)); usleep 30000; done"
    havred.out("run", "-d", "--name", "count", *options, "busybox", "sh", "-c", script)
    followers = [
        subprocess.Popen(["docker", "logs", "-f", "count"], env=havred.env, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for follower in followers:
        assert follower.communicate(timeout=30)[0].splitlines() == ALL[:20000]


def test_followers_that_leave_at_any_moment_leave_no_file_open(havred: Engine) -> None:
    havred.out("run", "--name", "count", "busybox", "echo", "read by nobody")
    request = b"GET /v1.45/containers/count/logs?stdout=1&follow=1 HTTP/1.1\r\nHost: havre\r\n\r\n"
    for seen in range(400):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(havred.socket))
            client.sendall(request)
            client.settimeout(seen * 0.00001)
            with suppress(TimeoutError, BlockingIOError):
                client.recv(1)
    havred.out("rm", "count")
    opened = Path(f"/proc/{havred.pid}/fd")

    def left() -> list[str]:
        return [target for each in opened.iterdir() if (target := _target(each)).endswith("(deleted)")]

    until(lambda: left() == [], "no deleted file that is open")


def _target(descriptor: Path) -> str:
    """What it refers to; nothing if it has just been closed."""
    with suppress(FileNotFoundError):
        return str(descriptor.readlink())
    return ""


def test_a_follower_gets_a_line_at_once(engine: Engine) -> None:
    """The quickest of some, on a machine that may be busy: nobody waits for a clock."""
    script = "for i in $(seq 12); do echo $i; usleep 50000; done"
    engine.out("run", "-d", "--name", "count", "busybox", "sh", "-c", script)
    delays = []
    with subprocess.Popen(["docker", "logs", "-f", "-t", "count"], env=engine.env, stdout=subprocess.PIPE) as follower:
        assert follower.stdout is not None
        for line in follower.stdout:
            written = datetime.fromisoformat(f"{line[:26].decode()}+00:00")
            delays.append((datetime.now(UTC) - written).total_seconds())
    assert len(delays) == 12
    assert min(delays) < 0.009


def test_a_server_that_takes_nothing_holds_up_no_end(havred: Engine, tmp_path: Path) -> None:
    """An attempt lasts 5 s, and dockerd waits 10; the cache has everything, here."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "syslog"))
        server.listen()
        options = ("--log-driver", "syslog", "--log-opt", f"syslog-address=unix://{tmp_path}/syslog")
        script = "yes $(seq 200) | head -n 1000; touch /written; sleep 100"
        havred.out("run", "-d", "--name", "mute", *options, "busybox", "sh", "-c", script)
        until(lambda: havred.docker("exec", "mute", "ls", "/written").returncode == 0, "all lines")
        begun = time.monotonic()
        havred.out("stop", "-t", "0", "mute")
        assert time.monotonic() - begun < 10
        assert havred.out("logs", "mute").count("\n") == 999
        havred.out("rm", "mute")
        assert time.monotonic() - begun < 12

"""Moving records on: nothing is lost or doubled, wherever the daemon is killed."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from havre.logs import spool as spools
from havre.logs.files import LogFile, files_of, open_all
from havre.logs.gap import Gap
from havre.logs.jsonfile import JSON
from havre.logs.plan import plan_log
from havre.logs.reading import LogOptions, read_files
from havre.logs.records import PLAIN, Record
from havre.logs.spool import LogPlan, Transcript
from havre.logs.subject import Subject

STAMP = b"2026-11-24T13:00:01.000000001+00:00"
SUBJECT = Subject(id="a" * 64, name="box", image_id="sha256:0", image_name="image", labels={}, env={})


class Killed(BaseException):
    """The daemon ends here."""


class Conmon:
    """Writes a spool as conmon does."""

    def __init__(self, plan: LogPlan) -> None:
        self.plan = plan
        self.written = 0
        self._held = b""

    def write(self, count: int, *, whole: bool = True) -> None:
        """So many numbers, each in two parts; without `whole` the last one's end comes with the next call."""
        with self.plan.spool.open("ab") as file:
            for number in range(self.written, self.written + count):
                file.write(self._held + b"%s stdout P %d\n" % (STAMP, number // 10))
                self._held = b"%s stdout F %d\n" % (STAMP, number % 10)
            if whole:
                file.write(self._held)
                self._held = b""
        self.written += count


@pytest.fixture(params=["json-file", "local"])
def plan(request: pytest.FixtureRequest, tmp_path: Path) -> LogPlan:
    return plan_log(request.param, {"max-size": "3000", "max-file": "100", "compress": "true"}, tmp_path, SUBJECT)


async def shown(plan: LogPlan) -> list[int]:
    assert plan.log is not None
    form = JSON if plan.log.name.endswith("-json.log") else PLAIN
    text = b""
    async for lines in read_files(open_all(plan.log), form, LogOptions(), None):
        text += b"".join(data for _, data in lines)
    return [int(number) for number in text.split()]


def read(plan: LogPlan) -> list[int]:
    import asyncio

    return asyncio.run(shown(plan))


def move_all(transcript: Transcript) -> None:
    while transcript.step() is not None:
        pass


def test_files_keep_to_their_size(plan: LogPlan) -> None:
    transcript, conmon = Transcript(plan), Conmon(plan)
    conmon.write(500)
    transcript.finish()
    transcript.close()
    assert plan.log is not None
    assert read(plan) == list(range(500))
    assert not plan.spool.exists()
    sizes = [file.stat().st_size for file in files_of(plan.log) if file.suffix != ".gz"]
    assert all(size < 3000 + 200 for size in sizes)
    assert [file.name.endswith(".gz") for file in files_of(plan.log)] == [False] + [True] * (
        len(files_of(plan.log)) - 1
    )


KILLS: list[tuple[object, str]] = [
    (os, "pwrite"),
    (os, "write"),
    (LogFile, "_take_place"),
    (LogFile, "_compress_old"),
    (Path, "rename"),
    (Path, "unlink"),
]


@pytest.mark.parametrize(("owner", "name"), KILLS, ids=[name for _, name in KILLS])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_kill_anywhere(plan: LogPlan, owner: object, name: str, after: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed at the first, second, third ... such call, and again and again."""
    monkeypatch.setattr(spools, "SPOOL_BYTES", 4000)
    conmon = Conmon(plan)
    conmon.write(1)
    Transcript(plan).close()
    original: Callable[..., object] = getattr(owner, name)
    for kill_at in range(12):
        calls = 0

        def dying(*arguments: object, kill_at: int = kill_at, **named: object) -> object:
            nonlocal calls
            calls += 1
            if calls <= kill_at:
                return original(*arguments, **named)
            if after:
                original(*arguments, **named)
            elif name == "write":
                original(arguments[0], memoryview(arguments[1])[:57])  # type: ignore[arg-type]
            raise Killed

        monkeypatch.setattr(owner, name, dying)
        try:
            work(plan, conmon)
        except Killed:
            pass
        finally:
            monkeypatch.setattr(owner, name, original)
    transcript = Transcript(plan)
    if transcript.wants_reopening and plan.spool.with_name("ctr.log.old").exists():
        plan.spool.touch()
    conmon.write(1)
    transcript.finish()
    transcript.close()
    assert read(plan) == list(range(conmon.written))


def work(plan: LogPlan, conmon: Conmon) -> None:
    """What a daemon does until it is killed; descriptors go with it."""
    transcript = Transcript(plan)
    for _ in range(3):
        if transcript.wants_reopening:
            plan.spool.touch()  # conmon, told so
        conmon.write(40, whole=False)
        move_all(transcript)
        if transcript.is_long:
            transcript.set_aside()
            plan.spool.touch()
    transcript.close()


def test_an_unfinished_line_at_the_end(tmp_path: Path) -> None:
    sent: list[bytes] = []

    class Recorder:
        def send(self, record: Record) -> None:
            sent.append(record.text)

        def hurry(self) -> None:
            pass

        def close(self) -> None:
            pass

    base = plan_log("json-file", {}, tmp_path, SUBJECT)
    plan = LogPlan(base.spool, base.log, base.limits, base.render, Recorder)
    transcript = Transcript(plan)
    transcript.finish()
    plan.spool.write_bytes(b"%s stdout P 12\n" % STAMP)
    move_all(transcript)
    assert read(plan) == []
    transcript.close()
    transcript = Transcript(plan)
    move_all(transcript)
    transcript.finish()
    transcript.close()
    assert read(plan) == [12]
    assert sent == [b"12"]


@pytest.mark.parametrize("driver", ["json-file", "local", "syslog"])
@pytest.mark.parametrize("anew", [False, True], ids=["one daemon", "a daemon each"])
def test_a_line_that_spans_spools(tmp_path: Path, driver: str, anew: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an error stream whose other stream is long; a character is half in one spool, half in the next."""
    sent: list[bytes] = []

    class Recorder:
        def send(self, record: Record) -> None:
            sent.append(record.text)

        def hurry(self) -> None:
            pass

        def close(self) -> None:
            pass

    monkeypatch.setattr(spools, "SPOOL_BYTES", 100)
    base = plan_log(driver, {}, tmp_path, SUBJECT)
    plan = LogPlan(base.spool, base.log, base.limits, base.render, Recorder if driver == "syslog" else None)
    transcript = Transcript(plan)
    for piece in ("ä".encode()[:1], "ä".encode()[1:], b"b"):
        with plan.spool.open("ab") as file:
            file.write(b"%s stderr P %s\n%s stdout F 123456789\n" % (STAMP, piece, STAMP))
        move_all(transcript)
        assert transcript.is_long
        transcript.set_aside()
        plan.spool.touch()
        if anew:
            transcript.close()
            transcript = Transcript(plan)
        move_all(transcript)
    plan.spool.write_bytes(b"%s stderr F c\n" % STAMP)
    transcript.finish()
    transcript.close()
    whole = ["123456789", "123456789", "123456789", "äbc"]
    assert plan.log is not None
    form = JSON if driver == "json-file" else PLAIN
    assert [form.parse(line)[3].decode() for line in plan.log.read_bytes().splitlines()] == whole  # type: ignore[index]
    assert [text.decode() for text in sent] == (whole if driver == "syslog" else [])


def test_a_run_after_a_run(plan: LogPlan) -> None:
    conmon = Conmon(plan)
    for _ in range(3):
        transcript = Transcript(plan)
        transcript.finish()
        conmon.write(30)
        move_all(transcript)
        transcript.finish()
        transcript.close()
    assert read(plan) == list(range(90))


def test_a_full_disk_is_waited_for(plan: LogPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    transcript, conmon = Transcript(plan), Conmon(plan)
    conmon.write(100)
    write = os.write

    def full(descriptor: int, data: bytes) -> int:
        write(descriptor, bytes(data)[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    for _ in range(3):
        with pytest.raises(OSError, match="No space"):
            move_all(transcript)
    monkeypatch.setattr(os, "write", write)
    conmon.write(50)
    transcript.finish()
    transcript.close()
    assert read(plan) == list(range(150))


def test_a_log_that_its_user_truncates(tmp_path: Path) -> None:
    plan = plan_log("json-file", {}, tmp_path, SUBJECT)
    transcript, conmon = Transcript(plan), Conmon(plan)
    conmon.write(10)
    move_all(transcript)
    assert plan.log is not None
    os.truncate(plan.log, 0)
    conmon.write(10)
    transcript.finish()
    transcript.close()
    assert read(plan) == list(range(10, 20))


def test_forwarded_once_and_whole(tmp_path: Path) -> None:
    sent: list[bytes] = []

    class Recorder:
        def send(self, record: Record) -> None:
            if len(sent) == 25:
                sent.append(b"")
                raise Killed
            sent.append(record.text)

        def hurry(self) -> None:
            pass

        def close(self) -> None:
            pass

    base = plan_log("syslog", {}, tmp_path, SUBJECT)
    plan = LogPlan(base.spool, base.log, base.limits, base.render, Recorder)
    transcript, conmon = Transcript(plan), Conmon(plan)
    conmon.write(40)
    with pytest.raises(Killed):
        move_all(transcript)
    transcript = Transcript(plan)
    transcript.finish()
    transcript.close()
    assert [int(text) for text in sent if text] == list(range(40))
    assert read(plan) == list(range(40))


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_what_finds_no_room_is_dropped_and_the_oldest_kept(tmp_path: Path, driver: str) -> None:
    plan = plan_log(driver, {"mode": "non-blocking", "max-buffer-size": "100k"}, tmp_path, SUBJECT)
    transcript, conmon = Transcript(plan), Conmon(plan)
    conmon.write(40_000)
    assert transcript.step()
    conmon.write(40_000)  # nothing was read meanwhile: the gap gets wider
    move_all(transcript)
    conmon.write(10)
    transcript.finish()
    transcript.close()
    kept = read(plan)
    first = kept.index(80_000)
    assert kept == [*range(first), *range(80_000, 80_010)]
    assert 14_000 < first < 26_000


def test_a_server_misses_what_its_cache_has(tmp_path: Path) -> None:
    sent: list[bytes] = []

    class Recorder:
        def send(self, record: Record) -> None:
            sent.append(record.text)

        def hurry(self) -> None:
            pass

        def close(self) -> None:
            pass

    base = plan_log("syslog", {"mode": "non-blocking", "max-buffer-size": "100k"}, tmp_path, SUBJECT)
    plan = replace(base, forwarder=Recorder)
    transcript, conmon = Transcript(plan), Conmon(plan)
    conmon.write(30_000)
    transcript.finish()
    transcript.close()
    assert read(plan) == list(range(30_000))
    assert [int(text) for text in sent] == list(range(len(sent)))
    assert 14_000 < len(sent) < 26_000


def test_a_gap_does_not_end_within_a_line_that_is_still_written(tmp_path: Path) -> None:
    whole, begun = b"%s stdout F 1234567\n" % STAMP * 100, b"%s stdout P 1234\n" % STAMP
    spool = tmp_path / "spool"
    spool.write_bytes(whole + begun)
    with spool.open("rb") as file:
        gap = Gap(10)
        for _ in range(3):
            gap.widen(file.fileno(), 0)
            assert gap.end == len(whole)

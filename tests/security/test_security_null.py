"""The host's /dev/null stays root's and open to all, whatever runs and as whom; the tests put it right if it does not.

crun before 1.24 gives its standard streams to the user of a process, and conmon gives it the host's /dev/null.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from havre.errors import Failed
from havre.runtime.plan import Bind, Device, User
from support.boxes import Box, boxed, execute, rootfs
from support.building import write_context
from support.engines import Engine
from support.waiting import until

__all__ = ["boxed", "rootfs"]

_FOREIGN = ("-u", "999:998")
_BUSYBOX = ("busybox", "sleep", "1000")
_REFUSAL = "container's /dev/null is invalid"
_CHANGES = "for i in 0 1 2; do busybox chmod 600 /proc/self/fd/$i; busybox chown 9:9 /proc/self/fd/$i; done; true"


def _state() -> tuple[int, int, int]:
    status = os.stat("/dev/null")
    return status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)


@pytest.fixture
def unchanged() -> Iterator[Callable[[], None]]:
    """Asserts that /dev/null is as it is on every host, at once and at the end."""

    def check() -> None:
        assert _state() == (0, 0, 0o666)

    check()
    try:
        yield check
        check()
    finally:
        os.chown("/dev/null", 0, 0)
        os.chmod("/dev/null", 0o666)


@pytest.mark.parametrize("flags", [(), ("-i",), ("-t",), ("-d",), ("-d", "-t")])
def test_a_container_of_another_user(havred: Engine, unchanged: Callable[[], None], flags: tuple[str, ...]) -> None:
    havred.out("run", "--name", "foreign", *flags, *_FOREIGN, "busybox", "true")
    havred.out("wait", "foreign")
    unchanged()
    havred.out("start", "foreign")
    havred.out("wait", "foreign")
    assert havred.out("inspect", "-f", "{{.State.ExitCode}}", "foreign").strip() == "0"


@pytest.mark.parametrize("flags", [(), ("-i",), ("-t",), ("-d",), ("-d", "-t"), ("-d", "-i")])
def test_an_exec_of_another_user(havred: Engine, unchanged: Callable[[], None], flags: tuple[str, ...]) -> None:
    havred.out("run", "-d", "--name", "target", "-v", "/tmp", *_BUSYBOX)
    havred.out("exec", *flags, *_FOREIGN, "target", "sh", "-c", "id -u >/tmp/done && mv /tmp/done /tmp/ran")
    until(lambda: havred.docker("exec", "-i", "target", "cat", "/tmp/ran").stdout == "999\n", "the exec to run")
    havred.out("rm", "-fv", "target")


def test_probes_of_another_user(havred: Engine, unchanged: Callable[[], None]) -> None:
    probe = ("--health-cmd", "id -u", "--health-interval", "100ms")
    havred.out("run", "-d", "--name", "probed", *_FOREIGN, *probe, *_BUSYBOX)
    seen = "{{range .State.Health.Log}}{{.Output}}{{end}}"
    until(lambda: "999" in havred.out("inspect", "-f", seen, "probed"), "a probe")
    havred.out("rm", "-f", "probed")


def test_steps_of_another_user(havred: Engine, unchanged: Callable[[], None], tmp_path: Path) -> None:
    text = f"FROM busybox\nUSER 999\nRUN id -u >/tmp/who\nUSER 0\nRUN {_CHANGES}\nRUN grep 999 /tmp/who\n"
    context = write_context(tmp_path / "context", text, {})
    havred.docker("buildx", "build", "--no-cache", str(context), check=0)


@pytest.mark.parametrize("tty", [False, True])
@pytest.mark.parametrize("open_stdin", [False, True])
def test_root_changes_nothing_by_its_streams(boxed, unchanged: Callable[[], None], tty: bool, open_stdin: bool) -> None:
    async def body(box: Box) -> None:
        async with box.started("sh", "-c", f"{_CHANGES}; sleep 1000", tty=tty, open_stdin=open_stdin) as process:
            await execute(process, "sh", "-c", _CHANGES, tty=tty, open_stdin=open_stdin)
            unchanged()

    boxed(body)


def test_an_exec_without_input_has_a_null_device_that_nobody_changes(boxed, unchanged: Callable[[], None]) -> None:
    async def body(box: Box) -> None:
        async with box.started("sh", "-c", "exec sleep 1000") as process:
            for user in (User(), User(uid=999, gid=998)):
                await execute(process, "sh", "-c", _CHANGES, user=user)
                script = "busybox stat -L -c '%a %u:%g %t:%T' /dev/fd/0; readlink /dev/fd/0; cat; echo >/dev/fd/0"
                out, err, end = await execute(process, "sh", "-c", script, user=user)
                assert (out, err, end.code) == (b"666 0:0 1:3\n/dev/null\n", b"", 0)

    boxed(body)


@pytest.mark.parametrize("path", ["/dev", "/dev/null"])
@pytest.mark.parametrize("tty", [False, True])
def test_a_host_device_shown_to_another_user(boxed, unchanged: Callable[[], None], path: str, tty: bool) -> None:
    async def body(box: Box) -> None:
        bind = Bind(source=Path(path), destination=path)
        user = User(uid=999, gid=998)
        out, _, _ = await box.run(
            "sh", "-c", "id -u; echo >/dev/null && cat /dev/null", mounts=(bind,), user=user, tty=tty
        )
        assert out.split() == [b"999"]

    boxed(body)


@pytest.mark.parametrize("tty", [False, True])
@pytest.mark.parametrize("user", [User(), User(uid=999, gid=998)])
def test_another_device_in_its_place(boxed, unchanged: Callable[[], None], tty: bool, user: User) -> None:
    """crun and older runc leave their standard streams as they are; runc with its fix of CVE-2025-31133 refuses."""

    async def body(box: Box) -> None:
        zero = Device(path="/dev/null", type="c", major=1, minor=5)
        bind = Bind(source=Path("/dev/full"), destination="/dev/null")
        for changed in ({"devices": (zero,)}, {"mounts": (bind,)}):
            refused = ""
            try:
                out, _, _ = await box.run("sh", "-c", f"id -u; ({_CHANGES}) 2>/dev/zero", user=user, tty=tty, **changed)
            except Failed as refusal:
                refused = str(refusal)
            if refused:
                # With a terminal conmon may end, and runc with it, before runc has written its reason.
                assert box.name == "runc"
                assert _REFUSAL in refused or tty
            else:
                assert out.split() == [b"%d" % user.uid]
            unchanged()

    boxed(body)

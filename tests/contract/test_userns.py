"""Containers with other user IDs than the host's: the daemon's `--userns-remap`, and `--userns=auto`."""

from __future__ import annotations

import io
import os
import signal
import struct
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.raw import ask
from support.remapped import AUTO_GID, AUTO_UID, COUNT, FIRST_GID, FIRST_UID, Remapped
from support.waiting import until

OWNERS = (
    "cd /tmp && echo new >file && chown 5:6 file && touch root && ln -s file link && mkdir dir && chown -h 7:8 link"
)


@pytest.fixture(scope="module")
def _remapped(archive: Path) -> Iterator[Remapped]:
    engine = Remapped()
    try:
        engine.open()
        engine.docker("load", "-i", str(archive), check=0)
        yield engine
    finally:
        engine.close()


@pytest.fixture
def havred(_remapped: Remapped) -> Remapped:
    """In place of the one that all tests share: it is the leak check's, too."""
    return _remapped


@pytest.fixture(autouse=True)
def _cleared(leak_check: None, havred: Remapped) -> Iterator[None]:
    """What a test has made is removed before leaks are looked for, here in the mount namespace of the daemon."""
    kept, mounted = havred.objects(), havred.mounts()
    yield
    havred.tidy(kept)
    until(lambda: havred.mounts() <= mounted, "the end of all mounts", 10)
    assert list((havred.root / "run/netns").iterdir()) == []
    is_given_away = FIRST_UID <= os.stat("/dev/null").st_uid < FIRST_UID + COUNT
    assert not is_given_away, "crun gives what it is called with to the container's root, if it is told who that is"


def _run(engine: Remapped, *arguments: str) -> str:
    return engine.out("run", "--rm", *arguments)


def _sh(engine: Remapped, script: str, *flags: str) -> str:
    return _run(engine, *flags, "busybox", "sh", "-c", script)


def _members(archive: bytes) -> dict[str, tuple[int, int]]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {member.name.rstrip("/"): (member.uid, member.gid) for member in tar}


def _get(engine: Remapped, path: str) -> bytes:
    return ask(engine.socket, "GET", path).body


def test_root_inside_is_another_user_outside(havred: Remapped) -> None:
    havred.docker("run", "-d", "--name", "it", "busybox", "sleep", "1000", check=0)
    assert havred.out("exec", "it", "id", "-u") == "0"
    assert havred.out("exec", "it", "cat", "/proc/self/uid_map").split() == ["0", str(FIRST_UID), str(COUNT)]
    assert havred.out("exec", "it", "cat", "/proc/self/gid_map").split() == ["0", str(FIRST_GID), str(COUNT)]
    status = Path("/proc", havred.out("inspect", "-f", "{{.State.Pid}}", "it"), "status").read_text()
    assert f"Uid:\t{FIRST_UID}\t{FIRST_UID}\t{FIRST_UID}\t{FIRST_UID}\n" in status
    assert "name=userns" in havred.out("info", "-f", "{{.SecurityOptions}}")
    assert _run(havred, "--userns", "host", "busybox", "cat", "/proc/self/uid_map").split()[1] == "0"


def test_what_the_engine_mounts_belongs_to_root_inside(havred: Remapped) -> None:
    places = "/ /etc/hosts /etc/hostname /etc/resolv.conf /dev /dev/shm /dev/pts /tmpfs"
    shown = _sh(havred, f"stat -c %u:%g {places}", "--tmpfs", "/tmpfs")
    assert set(shown.split()) == {"0:0"}
    assert _sh(havred, "echo more >>/etc/hosts && tail -1 /etc/hosts") == "more"
    assert _sh(havred, "touch /file /.dockerenv && stat -c %u /file /.dockerenv").split() == ["0", "0"]


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_commands_terminals_and_users(havred: Remapped, runtime: str) -> None:
    havred.docker("run", "-d", "-t", "--name", "it", "--runtime", runtime, "busybox", "sleep", "1000", check=0)
    assert havred.out("exec", "-t", "it", "stat", "-c", "%u:%g", "/dev/pts/1") == "0:5"
    assert havred.out("exec", "--user", "12:13", "it", "sh", "-c", "id -u; id -g; echo out >/dev/stdout").split() == [
        "12",
        "13",
        "out",
    ]
    assert _sh(havred, "id -u; echo out >/dev/stdout", "--user", "9", "--runtime", runtime).split() == ["9", "out"]


def test_files_keep_on_disk_who_they_are_inside(havred: Remapped) -> None:
    havred.docker("run", "--name", "it", "busybox", "sh", "-c", OWNERS, check=0)
    id = havred.out("inspect", "-f", "{{.Id}}", "it")
    file = (havred.root / "data/snapshots" / id / "upper/tmp/file").stat()
    assert (file.st_uid, file.st_gid) == (5, 6)
    assert "A /tmp/file" in havred.out("diff", "it")
    havred.docker("commit", "it", "committed", check=0)
    for userns in ("", "host"):
        shown = _run(
            havred, "--userns", userns, "committed", "stat", "-c", "%u:%g", "/tmp/file", "/tmp/link", "/tmp/dir"
        )
        assert shown.split() == ["5:6", "7:8", "0:0"], userns
    havred.docker("rmi", "committed", check=0)


@pytest.mark.parametrize("runs", [True, False])
def test_copies_tell_who_files_belong_to_inside(havred: Remapped, runs: bool) -> None:
    script = f"{OWNERS}; {'sleep 1000' if runs else 'true'}"
    havred.docker("run", "-d", "--name", "it", "-v", "data:/data", "busybox", "sh", "-c", script, check=0)
    until(lambda: "A /tmp/dir" in havred.out("diff", "it"), "what the container makes")
    if not runs:
        havred.docker("wait", "it", check=0)
    members = _members(_get(havred, "/containers/it/archive?path=/tmp"))
    assert members == {"tmp": (0, 0), "tmp/file": (5, 6), "tmp/root": (0, 0), "tmp/link": (7, 8), "tmp/dir": (0, 0)}
    assert _members(_get(havred, "/containers/it/export"))["tmp/file"] == (5, 6)

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo("deep/copied")
        member.uid, member.gid = 44, 45
        tar.addfile(member)
    for target in ("/home", "/data"):
        havred.docker("cp", "-", f"it:{target}", stdin=buffer.getvalue(), check=0)
    havred.docker("start", "it", check=0)
    havred.docker("commit", "it", "copied", check=0)
    shown = "%u:%g", "/home/deep", "/home/deep/copied", "/data/deep/copied"
    assert _run(havred, "-v", "data:/data", "copied", "stat", "-c", *shown).split() == ["0:0", "44:45", "44:45"]
    havred.docker("rm", "-f", "it", check=0)
    havred.docker("rmi", "copied", check=0)


@pytest.mark.parametrize("runs", [True, False])
def test_copies_of_many_pieces(havred: Remapped, tmp_path: Path, runs: bool) -> None:
    """More than one piece of an archive that is not compressed."""
    for number in range(6):
        (tmp_path / f"part{number}").write_bytes(os.urandom(300_000))
    expected = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    havred.docker("run", "-d", "--name", "it", "busybox", "sleep", "1000" if runs else "0", check=0)
    if not runs:
        havred.docker("wait", "it", check=0)
    for number, program in enumerate((havred.docker, havred.havre)):
        program("cp", f"{tmp_path}/.", f"it:/home/{number}", check=0)
        with tarfile.open(fileobj=io.BytesIO(_get(havred, f"/containers/it/archive?path=/home/{number}/."))) as tar:
            files = [member for member in tar if member.isreg()]
            assert {os.path.basename(file.name): tar.extractfile(file).read() for file in files} == expected  # type: ignore[union-attr]
            assert {(file.uid, file.gid) for file in files} == {(0, 0)}
    havred.docker("rm", "-f", "it", check=0)


def test_capabilities_of_files_count_inside(havred: Remapped) -> None:
    """NET_RAW, of a program in an image, copied out and in again, and in a volume."""
    havred.docker("create", "--name", "plain", "busybox", check=0)
    busybox = _get(havred, "/containers/plain/archive?path=/bin/busybox")
    buffer = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(busybox)) as source,
        tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        member = source.next()
        assert member is not None
        content = source.extractfile(member)
        member.name = "grep"
        capability = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0).decode("latin-1")
        member.pax_headers = {"SCHILY.xattr.security.capability": capability}
        tar.addfile(member, content)
    havred.docker("cp", "-", "plain:/home", stdin=buffer.getvalue(), check=0)
    with tarfile.open(fileobj=io.BytesIO(_get(havred, "/containers/plain/archive?path=/home/grep"))) as tar:
        member = tar.next()
        assert member is not None
        assert member.pax_headers["SCHILY.xattr.security.capability"] == capability
    havred.docker("commit", "plain", "capable", check=0)
    effective = "CapEff:\t0000000000002000"
    for flags in ((), ("--userns", "host"), ("-v", "filled:/home"), ("-v", "filled:/home", "--userns", "host")):
        command = ("--user", "1000", *flags, "capable", "/home/grep", "CapEff", "/proc/self/status")
        assert _run(havred, *command) == effective, flags
    havred.docker("rm", "plain", check=0)
    havred.docker("rmi", "capable", check=0)


def test_volumes_serve_containers_of_all_ids(havred: Remapped) -> None:
    assert _sh(havred, "touch /v/one && chown 5:6 /v/one && stat -c %u:%g /v", "-v", "shared:/v") == "0:0"
    one = (havred.root / "data/volumes/shared/_data/one").stat()
    assert (one.st_uid, one.st_gid) == (5, 6)
    script = "stat -c %u:%g /v/one; touch /v/two"
    assert _sh(havred, script, "-v", "shared:/v", "--userns", "host") == "5:6"
    assert havred.havre("run", "--rm", "--userns", "auto", "-v", "shared:/v", "busybox", "stat", "-c", "%u", "/v/two")
    filled = _sh(havred, "stat -c %u:%g /bin /bin/busybox", "-v", "filled:/bin")
    assert set(filled.split()) == {"0:0"}
    _sh(havred, "mkdir /v/part", "-v", "parts:/v")
    part = ("--mount", "type=volume,src=parts,dst=/bin,volume-subpath=part")
    assert set(_sh(havred, "stat -c %u:%g /bin /bin/busybox", *part).split()) == {"0:0"}
    assert (havred.root / "data/volumes/parts/_data/part/busybox").stat().st_uid == 0


def test_what_is_the_host_s_is_not_shown_as_the_container_s(havred: Remapped, tmp_path: Path) -> None:
    """Neither a bind mount nor a volume that is one: what is root's there is nobody's inside, as with dockerd."""
    (tmp_path / "root").write_text("the host's")
    (tmp_path / "own").touch()
    os.chown(tmp_path / "own", FIRST_UID + 5, FIRST_GID + 6)
    tmp_path.chmod(0o755)
    options = ("volume-opt=type=none", "volume-opt=o=bind", f"volume-opt=device={tmp_path}")
    for flags in (("-v", f"{tmp_path}:/v"), ("--mount", f"type=volume,src=bound,dst=/v,{','.join(options)}")):
        assert _sh(havred, "stat -c %u:%g /v /v/root /v/own; touch /v/new; true", *flags).split() == [
            "65534:65534",
            "65534:65534",
            "5:6",
        ]
    assert not (tmp_path / "new").exists()


def test_the_network_is_the_container_s_to_change(havred: Remapped) -> None:
    addresses = "ip addr add 10.9.8.7/32 dev lo; ip -4 -o addr show dev lo"
    assert "10.9.8.7" in _sh(havred, addresses, "--cap-add", "NET_ADMIN")
    assert "10.9.8.7" not in _sh(havred, addresses)
    assert _sh(havred, "cat /proc/sys/net/ipv4/ip_forward", "--sysctl", "net.ipv4.ip_forward=1") == "1"
    assert _sh(havred, "cat /proc/sys/net/ipv4/ping_group_range").split() == ["0", str(COUNT - 1)]
    script = "echo found >/tmp/page; httpd -f -h /tmp"
    havred.docker("run", "-d", "--name", "web", "-p", "8088:80", "busybox", "sh", "-c", script, check=0)
    fetch = [*havred.inside, "curl", "-s", "127.0.0.1:8088/page"]
    until(lambda: subprocess.run(fetch, capture_output=True, check=False).stdout == b"found\n", "the page")
    havred.docker("network", "create", "more", check=0)
    havred.docker("network", "connect", "more", "web", check=0)
    assert _run(havred, "--network", "more", "busybox", "wget", "-qO-", "http://web/page") == "found"
    havred.docker("network", "disconnect", "more", "web", check=0)
    assert "eth1" not in havred.out("exec", "web", "ip", "addr")


def test_namespaces_of_containers_are_shared_within_a_user_namespace(havred: Remapped) -> None:
    flags = ("--ipc", "shareable", "--name", "donor")
    havred.docker("run", "-d", *flags, "busybox", "sh", "-c", "echo >/dev/shm/its; exec sleep 1000", check=0)
    until(lambda: not havred.docker("exec", "donor", "test", "-e", "/dev/shm/its").returncode, "the donor's file")
    joins = ("--network", "container:donor", "--pid", "container:donor", "--ipc", "container:donor")
    namespace = havred.out("exec", "donor", "readlink", "/proc/self/ns/user")
    script = "readlink /proc/self/ns/user; stat -c %u /dev/shm /dev/shm/its"
    assert _sh(havred, script, *joins).split() == [namespace, "0", "0"]
    # A network of its own, but the donor's user namespace, to which it must belong.
    joins = ("--pid", "container:donor", "--cap-add", "NET_ADMIN")
    assert "10.9.8.7" in _sh(havred, "ip addr add 10.9.8.7/32 dev lo; ip addr show dev lo", *joins)
    assert "eth0" in _sh(havred, "ip addr", "--userns", "host", "--network", "container:donor")

    havred.docker("run", "-d", "--userns", "host", "--name", "other", "busybox", "sleep", "1000", check=0)
    for flag in ("--network", "--pid"):
        refused = havred.docker("run", "--rm", flag, "container:other", "busybox", "true")
        assert "it has another user namespace" in refused.stderr
    both = ("--network", "container:donor", "--pid", "container:second")
    havred.docker("run", "-d", "--name", "second", "busybox", "sleep", "1000", check=0)
    assert "it has another user namespace" in havred.docker("run", "--rm", *both, "busybox", "true").stderr


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("--privileged",), "privileged mode is incompatible with user namespaces"),
        (("--network", "host"), "cannot share the host's network namespace when user namespaces are enabled"),
        (("--pid", "host"), "cannot share the host PID namespace when user namespaces are enabled"),
        (("--ipc", "host"), "cannot share the host IPC namespace when user namespaces are enabled"),
    ],
)
def test_what_only_the_host_s_root_may(havred: Remapped, flags: tuple[str, ...], text: str) -> None:
    assert text in havred.docker("create", *flags, "busybox").stderr
    assert havred.docker("run", "--rm", "--userns", "host", *flags, "busybox", "true").returncode == 0


def test_builds_run_with_other_ids_too(havred: Remapped, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hush")
    (tmp_path / "Dockerfile").write_text("""
FROM busybox AS one
RUN cut -c 1-40 /proc/self/uid_map >/map; echo mine >/f; chown 4:5 /f; chmod 600 /f
FROM busybox
WORKDIR /work
COPY --from=one --chown=9 /f /copied
RUN --mount=type=bind,from=one,target=/one --mount=type=bind,from=one,target=/rw,rw --mount=type=bind,target=/context \\
    --mount=type=cache,target=/cache --mount=type=secret,id=s,uid=7 \\
    cat /one/f >/read && touch /cache/x /rw/x && \\
    stat -c %u:%g /one/f /rw/f /context/Dockerfile /run/secrets/s /etc/hosts /copied /cache/x / /work >/owners && \\
    rm -r /home
USER 1000
RUN touch /tmp/own
COPY --from=one /map /map
""")
    secret = ("--secret", f"id=s,src={tmp_path}/secret")
    havred.docker("build", "-t", "built", *secret, str(tmp_path), check=0)
    script = "cat /map /read /owners; stat -c %u:%g /copied /tmp/own; ls -d /home /one /context"
    for userns in ("", "host"):
        shown = havred.docker("run", "--rm", "--userns", userns, "--user", "0", "built", "sh", "-c", script)
        assert shown.stdout.split() == [
            *("0", str(FIRST_UID), str(COUNT), "mine"),
            *("4:5", "4:5", "0:0", "7:0", "0:0", "9:9", "0:0", "0:0", "0:0"),
            *("9:9", "1000:0"),
        ], userns
    refused = havred.docker("build", "--no-cache", "--network", "host", *secret, str(tmp_path), check=1)
    assert "cannot share the host's network namespace when user namespaces are enabled" in refused.stderr
    havred.docker("rmi", "built", check=0)


def test_a_range_of_its_own(havred: Remapped) -> None:
    for name in ("one", "two"):
        havred.havre("run", "-d", "--userns", "auto", "--name", name, "busybox", "sleep", "1000", check=0)
    maps = [havred.out("exec", name, "cat", f"/proc/self/{kind}id_map") for name in ("one", "two") for kind in "ug"]
    firsts = [int(each.split()[1]) for each in maps]
    assert firsts == [AUTO_UID, AUTO_GID, AUTO_UID + COUNT, AUTO_GID + COUNT]
    refused = havred.havre("create", "--userns", "auto", "busybox")
    assert "every range of 65536 IDs of the user containers is taken" in refused.stderr
    refused = havred.docker("run", "--rm", "--pid", "container:one", "busybox", "true")
    assert "it has another user namespace" in refused.stderr
    havred.docker("rm", "-f", "one", check=0)
    again = havred.havre("run", "--rm", "--userns", "auto", "busybox", "cat", "/proc/self/uid_map", check=0).stdout
    assert again.split()[1] == str(AUTO_UID)
    assert "privileged mode" in havred.havre("create", "--userns", "auto", "--privileged", "busybox").stderr


def test_a_killed_daemon_finds_everything_again(havred: Remapped, tmp_path: Path) -> None:
    """Containers run on with the IDs they have, also where a new daemon gives others; of a build nothing is left."""
    havred.docker("run", "-d", "--name", "it", "busybox", "sh", "-c", f"{OWNERS}; exec sleep 1000", check=0)
    havred.havre("run", "-d", "--userns", "auto", "--name", "own", "busybox", "sleep", "1000", check=0)
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN touch /tmp/begun && sleep 1000\n")
    build = subprocess.Popen(
        ["docker", "build", "--no-cache", str(tmp_path)],
        env=havred.env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    snapshots = havred.root / "data/snapshots"
    until(lambda: list(snapshots.glob("*/upper/tmp/begun")), "the RUN")
    havred.stop(signal.SIGKILL)
    build.wait(20)
    given, havred.extra = havred.extra, []
    try:
        havred.start()
        assert havred.out("exec", "it", "cat", "/proc/self/uid_map").split()[1] == str(FIRST_UID)
        assert _members(_get(havred, "/containers/it/archive?path=/tmp/file")) == {"file": (5, 6)}
        names = {Path(point).parts[len(havred.root.parts) + 2] for point in havred.mounts()}
        ids = {havred.out("inspect", "-f", "{{.Id}}", name) for name in ("it", "own")}
        assert names - {f"{id}.user" for id in ids} == ids
        havred.docker("restart", "-t", "0", "it", "own", check=0)
        assert havred.out("exec", "it", "cat", "/proc/self/uid_map").split()[1] == "0"
        assert havred.out("exec", "it", "stat", "-c", "%u", "/tmp/file") == "5"
        assert havred.out("exec", "own", "cat", "/proc/self/uid_map").split()[1] == str(AUTO_UID)
    finally:
        havred.stop()
        havred.extra = given
        havred.start()
    havred.docker("restart", "-t", "0", "it", check=0)
    assert havred.out("exec", "it", "cat", "/proc/self/uid_map").split()[1] == str(FIRST_UID)


def test_a_daemon_that_has_no_ids_to_give_does_not_start(havred: Remapped) -> None:
    assert 'no subuid ranges found for "noranges"' in havred.refusal("--userns-remap", "noranges:remapped")


def test_a_file_system_that_cannot_show_other_ids(havred: Remapped) -> None:
    data = havred.root / "apart/data"
    data.mkdir(parents=True)
    enter = havred.inside
    subprocess.run([*enter, "mount", "-t", "ramfs", "ramfs", str(data)], check=True)
    try:
        refusal = havred.refusal("--userns-remap", "remapped")
    finally:
        subprocess.run([*enter, "umount", str(data)], check=True)
    assert "cannot show files with other user IDs (idmapped mounts)" in refusal
    assert "ramfs" in refusal


def test_no_user_of_the_host_has_a_way_to_the_files(havred: Remapped) -> None:
    """The container's root is let through the run root, and nobody else: on disk its set-user-ID files are root's."""
    script = "cp /bin/busybox /v/true && chmod 4755 /v/true && cp -p /v/true /true && exec sleep 1000"
    havred.docker("run", "-d", "--name", "it", "-v", "data:/v", "busybox", "sh", "-c", script, check=0)
    id = havred.out("inspect", "-f", "{{.Id}}", "it")
    until(lambda: not havred.docker("exec", "it", "test", "-u", "/true").returncode, "the program")
    shown = havred.root / "run/subpaths" / id / "rootfs/true"
    for place in (shown, havred.root / "run/snapshots" / id / "true", havred.root / "data/volumes/data/_data/true"):
        refused = subprocess.run([*_as_user(havred, 65534), "stat", str(place)], capture_output=True, check=False)
        assert b"Permission denied" in refused.stderr
    subprocess.run([*_as_user(havred, FIRST_GID), str(shown)], check=True)  # the way that crun goes


def _as_user(engine: Remapped, number: int) -> list[str]:
    return [*engine.inside, "setpriv", f"--reuid={number}", f"--regid={number}", "--clear-groups"]


def test_root_inside_with_every_capability_is_no_root_of_the_host(havred: Remapped, tmp_path: Path) -> None:
    """Where all that confines a container is lifted, other IDs are what is left."""
    (tmp_path / "root").write_text("the host's")
    (tmp_path / "root").chmod(0o600)
    tmp_path.chmod(0o777)
    tries = (
        "cat /h/root",
        "chown 0 /h/root",
        "chmod 666 /h/root",
        "cat /proc/sys/kernel/core_pattern >/proc/sys/kernel/core_pattern",
        "cat /proc/sysrq-trigger",
        "echo 1 >/sys/kernel/mm/ksm/run",
        "mknod /disk b 254 0",
        "mount -t devtmpfs none /mnt",
        "mount -o remount,exec /sys/fs/cgroup",
        "dmesg",
    )
    script = "mkdir /mnt; cp /bin/busybox /h/su; chmod 4755 /h/su; "
    script += "; ".join(f"({each}) >/dev/null 2>&1 && echo '{each}'" for each in tries) + "; true"
    lifted = (
        "--cap-add",
        "ALL",
        "--security-opt",
        "seccomp=unconfined",
        "--security-opt",
        "systempaths=unconfined",
    )
    assert _sh(havred, script, *lifted, "-v", f"{tmp_path}:/h") == ""
    assert (tmp_path / "root").stat().st_uid == 0
    made = (tmp_path / "su").stat()
    assert (made.st_uid, made.st_gid, made.st_mode & 0o7777) == (FIRST_UID, FIRST_GID, 0o4755)

"""What `make install` puts where, as a packager sees it (DESTDIR), and what it does with what runs already.

Nothing of the machine's own is touched: where it acts, /run and /etc are the test's, in a mount namespace.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PREFIX = "/opt/havre-test"


def script(destination: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DESTDIR": str(destination), "PREFIX": PREFIX, "PIP_NO_INDEX": "1"}
    return subprocess.run(
        [str(ROOT / "tools/install.sh"), *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture(scope="module")
def destination(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with everything installed, from the packages of the checkout alone: no index may be asked."""
    directory = tmp_path_factory.mktemp("packaged")
    done = script(directory, "install", "--docker-socket")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Copied Python packages" in done.stdout
    assert "Next:" not in done.stdout  # nothing has been started
    return directory


def test_programs_and_packages_are_there(destination: Path) -> None:
    below = Path(f"{destination}{PREFIX}")
    for name in ("havre", "havred"):
        assert os.readlink(below / "bin" / name) == f"{PREFIX}/lib/havre/venv/bin/{name}"
        assert str(destination) not in (below / "lib/havre/venv/bin" / name).read_text()
    python = below / "lib/havre/venv/bin/python"
    modules = "aiohttp, msgspec, zstandard, isal, yaml"
    subprocess.run([python, "-I", "-c", f"import {modules}"], check=True)
    assert subprocess.run([python, "-I", "-c", "import pytest"], capture_output=True, check=False).returncode == 1


def test_pages_completion_and_group(destination: Path) -> None:
    share = Path(f"{destination}{PREFIX}/share")
    for page in ("man1/havre.1", "man1/havre-run.1", "man1/havre-compose-up.1", "man8/havred.8"):
        assert (share / "man" / page).read_text().startswith(".TH")
    assert "\\-\\-data\\-root" in (share / "man/man8/havred.8").read_text()
    assert "havre" in (share / "bash-completion/completions/havre").read_text()
    assert Path(f"{destination}{PREFIX}/lib/sysusers.d/havre.conf").read_text() == "g havre -\n"


def test_units(destination: Path) -> None:
    units = destination / "etc/systemd/system"
    socket, service = ((units / f"havre.{kind}").read_text() for kind in ("socket", "service"))
    for line in ("ListenStream=/run/havre.sock", "SocketGroup=havre", "SocketMode=0660", "Symlinks=/run/docker.sock"):
        assert line in socket.splitlines()
    assert f"ExecStart={PREFIX}/bin/havred -H fd://" in service.splitlines()
    assert "StartLimitBurst=5" in service.splitlines()


def test_nothing_is_left_by_uninstall(destination: Path) -> None:
    assert script(destination, "uninstall").returncode == 0
    assert [path for path in destination.rglob("*") if not path.is_dir()] == []


def test_unknown_words_are_refused(tmp_path: Path) -> None:
    for words in (("install", "--docker"), ("remove",), ()):
        assert script(tmp_path, *words).returncode == 2
    assert not list(tmp_path.iterdir())


PRIVATE = """
set -eu
cd "$1"
mkdir upper work
mount -t tmpfs tmpfs /run
mount -t overlay overlay -o lowerdir=/etc,upperdir=upper,workdir=work /etc
mkdir /run/havre
unset DESTDIR
export PREFIX=$1/prefix
"""
TAKES_OVER = """
sh -c 'trap "rm /run/havre/havred.pid; exit" TERM; while :; do sleep 0.05; done' havred &
echo $! >/run/havre/havred.pid
"$2/tools/install.sh" install --docker-socket
wait
readlink /run/docker.sock
getent group havre
"$2/tools/install.sh" uninstall
[ ! -L /run/docker.sock ]
"""
REFUSES = """
touch /run/docker.sock
DOCKER_SOCKET=1 "$2/tools/install.sh" install
"""


def private(directory: Path, what: str) -> subprocess.CompletedProcess[str]:
    command = ["unshare", "--mount", "sh", "-c", PRIVATE + what, "sh", str(directory), str(ROOT)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_a_daemon_that_runs_is_taken_over(tmp_path: Path) -> None:
    done = private(tmp_path, TAKES_OVER)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Stopping the daemon that runs (PID " in done.stdout
    assert "usermod -aG havre USER" in done.stdout
    assert "\n/run/havre.sock\nhavre:x:" in done.stdout


def test_another_engines_socket_is_left_alone(tmp_path: Path) -> None:
    done = private(tmp_path, REFUSES)
    assert done.returncode == 1
    assert "/run/docker.sock exists: another engine's, it seems" in done.stderr
    assert not (tmp_path / "prefix").exists()

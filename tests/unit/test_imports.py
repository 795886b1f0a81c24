"""What a command costs before it does anything: the modules that it imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_errors_and_the_command_line_need_no_third_party_module() -> None:
    script = f"import sys; sys.path.insert(0, {str(ROOT / 'src')!r}); import havre.cli.main; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-IS", "-c", script], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"json", "re", "typing", "dataclasses", "argparse", "asyncio", "msgspec", "aiohttp"}


def test_cp_imports_little_for_archives() -> None:
    script = f"import sys; sys.path.insert(0, {str(ROOT / 'src')!r}); import havre.cli.copy; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-IS", "-c", script], capture_output=True, text=True, check=True)
    slow = {"dataclasses", "msgspec", "pathlib", "re", "subprocess", "tarfile", "havre.linux.trees"}
    assert not set(done.stdout.split()) & slow


def test_a_daemon_that_does_not_build_imports_no_grpc() -> None:
    script = "import sys; import havre.daemon.program; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT / "src")
    assert not set(done.stdout.split()) & {"grpclib", "h2", "hpack", "havre.api.buildkit.messages"}


def test_compose_imports_what_every_up_needs_and_no_more() -> None:
    script = "import sys; import havre.cli.compose.up; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True)
    slow = {"concurrent.futures", "dataclasses", "difflib", "inspect", "logging", "tarfile", "traceback"}
    assert not set(done.stdout.split()) & slow


def test_the_verbs_of_compose_that_look_import_no_plans() -> None:
    site = next(path for path in sys.path if path.endswith("site-packages"))
    script = f"import sys; sys.path[:0] = [{str(ROOT / 'src')!r}, {site!r}]; import havre.cli.compose.look; "
    done = subprocess.run([sys.executable, "-IS", "-c", f"{script}print(*sys.modules)"], capture_output=True, text=True)
    loaded = set(done.stdout.split())
    assert "havre.compose.load" in loaded
    assert not loaded & {
        "havre.compose.execute",
        "havre.compose.plan",
        "havre.compose.viz",
        "pathlib",
        "hashlib",
        "json",
    }

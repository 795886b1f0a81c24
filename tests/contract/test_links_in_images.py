"""Links of an image that lead to what is not there: what is wanted at them is made where they lead, inside the root."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.engines import Engine
from support.images import import_busybox

LINKS = {
    "data": "/missing/dir", "relative": "../../made/here", "up": "/../../../tmp/escaped", "chain": "/data/deeper",
    "file": "/nowhere/file", "etc/hosts": "/run/own/hosts", "etc/resolv.conf": "../run/systemd/resolve/stub.conf",
    "etc/hostname": "/nowhere/hostname", "loop": "loop", "place": "done/place", "null": "/dead/null",
    "scratch": "/empty",
}  # fmt: skip


@pytest.fixture
def linked(engine: Engine) -> Iterator[str]:
    """An image of busybox and LINKS."""
    import_busybox(engine, "linked", links=LINKS)
    yield "linked"
    engine.docker("rmi", "-f", "linked")


@pytest.mark.parametrize("runtime", ["", "runc"])
def test_mounts_and_working_directories(engine: Engine, linked: str, runtime: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("content")
    read = 'for file in $FILES; do read x <$file; echo "$x"; done; pwd'
    binds = {"/relative": "/made/here", "/up": "/tmp/escaped", "/chain": "/missing/dir/deeper"}
    options = [option for at in binds for option in ("-v", f"{tmp_path}:{at}")]
    options += ["-v", f"{tmp_path / 'f'}:/file", "--device", "/dev/null:/null", "--tmpfs", "/scratch"]
    files = [f"{directory}/f" for pair in binds.items() for directory in pair] + ["/file", "/nowhere/file"]
    shown = engine.out(
        *("run", "--rm", *(["--runtime", runtime] if runtime else []), *options, "-e", f"FILES={' '.join(files)}"),
        *("-w", "/place/sub", linked, "sh", "-c", f"{read}; echo x >/empty/x && [ -c /dead/null ] && echo device"),
    )
    assert shown.splitlines() == [*["content"] * len(files), "/done/place/sub", "device"]
    shown = engine.out(
        *("run", "--rm", "--read-only", "--hostname", "me", "-v", f"{tmp_path}:/data/sub", linked, "sh", "-c"),
        'for file in /missing/dir/sub/f /etc/hosts /etc/hostname; do read x <$file; echo "$x"; done; '
        "[ -s /etc/resolv.conf ] && echo some",
    )
    assert shown == "content\n127.0.0.1\tlocalhost\nme\nsome"
    assert not Path("/tmp/escaped").exists()


def test_links_that_lead_nowhere_at_all(engine: Engine, linked: str) -> None:
    for options in (("-v", "/tmp:/loop"), ("-w", "/loop")):
        assert "too many" in engine.docker("run", "--rm", *options, linked, "sh", check=125).stderr.lower()

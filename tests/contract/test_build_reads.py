"""What a build reads, and what it has sent to it: files of stages once, of a context no more than it can want."""

from __future__ import annotations

from pathlib import Path

from support.building import built, write_context
from support.engines import Engine

_BIG = 30_000_000


def _read_by(engine: Engine) -> int:
    """Bytes that the daemon has read so far, from files and sockets."""
    fields = dict(line.split(": ") for line in Path(f"/proc/{engine.pid}/io").read_text().splitlines())
    return int(fields["rchar"])


def test_the_files_of_a_stage_are_read_once(havred: Engine, tmp_path: Path) -> None:
    made = f"FROM busybox AS made\nRUN head -c {_BIG} /dev/urandom > /big\nFROM scratch\n"
    first = built(havred, write_context(tmp_path / "one", f"{made}COPY --from=made / /all/\n"))
    before = _read_by(havred)
    assert built(havred, tmp_path / "one") == first
    assert _read_by(havred) - before < _BIG / 3
    other = built(havred, write_context(tmp_path / "other", f"{made}COPY --from=made /big /all/big\n"))
    assert other != first
    assert _read_by(havred) - before > _BIG, "what is copied otherwise has a digest of its own"

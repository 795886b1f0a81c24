"""What a build reads, and what it has sent to it: files of stages once, of a context no more than it can want."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from support.building import built, tree_of, write_context
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


@pytest.mark.parametrize("client", ["buildx", "havre"])
def test_no_more_of_a_context_is_sent_than_it_can_want(havred: Engine, tmp_path: Path, client: str) -> None:
    files = {"big": os.urandom(_BIG), "some/file.txt": "text", "link": "-> some", "s1.txt": "1", "s2.txt": "2"}
    context = write_context(tmp_path / "c", "FROM busybox\nCOPY link/file.txt s?.txt twin /x/\n", files)
    (context / "a-first").write_text("twins")
    (context / "twin").hardlink_to(context / "a-first")
    before = _read_by(havred)
    image = built(havred, context, client=client)
    assert _read_by(havred) - before < _BIG / 3
    found = tree_of(havred, image)
    assert {each.removeprefix("x/") for each in found if each.startswith("x/")} == {
        "file.txt", "s1.txt", "s2.txt", "twin",
    }  # fmt: skip
    assert _content(havred, image, "x/file.txt", "x/twin") == b"texttwins"
    (context / "Dockerfile").write_text("FROM busybox\nCOPY big /\n")
    assert _content(havred, built(havred, context, client=client), "big") == files["big"]


@pytest.mark.parametrize("client", ["buildx", "havre"])
def test_triggers_of_a_base_are_sent_what_they_copy(havred: Engine, tmp_path: Path, client: str) -> None:
    base = write_context(tmp_path / "base", "FROM busybox\nONBUILD COPY later.txt /\n")
    built(havred, base, "-t", f"triggers-{client}")
    files = {"later.txt": "later", "now.txt": "now", "other.txt": "other"}
    context = write_context(tmp_path / "c", f"FROM triggers-{client}\nCOPY now.txt /\n", files)
    assert _content(havred, built(havred, context, client=client), "later.txt", "now.txt") == b"laternow"


def test_links_between_the_sources_of_a_copy_stay(havred: Engine, tmp_path: Path) -> None:
    made = "FROM busybox AS made\nRUN echo x > /one && ln /one /two\n"
    context = write_context(tmp_path / "c", f"{made}FROM busybox\nCOPY --from=made /one /two /x/\n")
    image = built(havred, context)
    assert havred.out("run", "--rm", "--network", "none", image, "stat", "-c", "%h", "/x/one") == "2"


def _content(engine: Engine, image: str, *paths: str) -> bytes:
    command = ["docker", "run", "--rm", "--network", "none", image, "cat", *(f"/{path}" for path in paths)]
    return subprocess.run(command, env=engine.env, capture_output=True, check=True).stdout

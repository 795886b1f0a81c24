"""What a build reads, and what it has sent to it: files of stages once, of a context no more than it can want."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from support.building import CLIENTS, built, send_listed, tree_of, write_context
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


_LINKED = """\
FROM busybox AS made
RUN mkdir x y z && printf X > x/f && printf Y > y/f && ln x/f z/g && ln x/f /a && ln y/f /after
FROM busybox
COPY x/f y/f z/g /files/
COPY x y z /directories/
COPY --from=made /x/f /y/f /z/g /stage/
COPY x/f /text/
COPY x/f <<f z/g /text/
a text
f
COPY d/name d/hard /later/
COPY --parents zz aa /parents/
COPY --from=made /after /y/f /a /x/f /sorted/
"""


@pytest.mark.parametrize("client", CLIENTS)
def test_names_of_one_file_keep_its_content(havred: Engine, tmp_path: Path, client: str) -> None:
    context = write_context(tmp_path / "c", _LINKED, {"x/f": "X", "y/f": "Y", "d/name": "D", "aa": "A", "z/": ""})
    for link, name in (("z/g", "x/f"), ("d/hard", "d/name"), ("zz", "aa")):
        (context / link).hardlink_to(context / name)
    image = built(havred, context, client=client)
    for replaced in ("files", "directories", "stage"):
        assert _content(havred, image, f"{replaced}/f", f"{replaced}/g") == b"YX", replaced
    assert _content(havred, image, "text/f", "text/g") == b"a text\nX"
    assert _content(havred, image, "later/hard", "later/name", "parents/aa", "parents/zz") == b"DDAA"
    assert _content(havred, image, *(f"sorted/{name}" for name in ("a", "after", "f"))) == b"XYX"


def test_which_file_a_link_names_is_part_of_the_key(havred: Engine, tmp_path: Path) -> None:
    files = {"x/f": "X", "y/f": "Y", "z/": ""}
    context = write_context(tmp_path / "c", "FROM busybox\nCOPY x/f y/f z/g /o/\n", files)
    (context / "z/g").hardlink_to(context / "x/f")
    assert _content(havred, built(havred, context), "o/f", "o/g") == b"YX"
    (context / "z/g").unlink()
    (context / "z/g").hardlink_to(context / "y/f")
    assert _content(havred, built(havred, context), "o/f", "o/g") == b"YY"


def test_a_dockerfile_saved_while_it_is_sent(havred: Engine, tmp_path: Path) -> None:
    context = write_context(tmp_path / "c", "FROM busybox\nCOPY since /\n", {"a": "1"})
    told = send_listed(havred, context, b"FROM busybox\nCOPY a /\n")
    assert told[0]["aux"]["Wanted"] == {"context": [0, 1]}
    assert _content(havred, told[-1]["stream"].strip(), "a") == b"1"


def _content(engine: Engine, image: str, *paths: str) -> bytes:
    command = ["docker", "run", "--rm", "--network", "none", image, "cat", *(f"/{path}" for path in paths)]
    return subprocess.run(command, env=engine.env, capture_output=True, check=True).stdout

"""The two forms of a layer agree: whatever the archive, an index shows what unpacking makes, and both refuse alike."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from havre.errors import HavreError
from havre.oci.digest import digest_of
from havre.storage.erofs import Index, Unindexable
from havre.storage.layerfiles import LayerWriter, add_entries
from havre.storage.verify import difference
from havre.tar.reader import TarParser
from support import tars
from support.trees import describe

names = st.lists(
    st.sampled_from([b"a", b"b", b"c", b".wh.a", b".wh.b", b".wh..wh..opq", b".wh..wh.x"]), min_size=1, max_size=3
)
paths = names.map(b"/".join)
plain = st.lists(st.sampled_from([b"a", b"b", b"c"]), min_size=1, max_size=3).map(b"/".join)
modes = st.sampled_from([0o644, 0o4755, 0o1700])
records = st.lists(
    st.sampled_from([(b"SCHILY.xattr.user.x", b"1"), (b"SCHILY.xattr.trusted.y", b""), (b"mtime", b"5.25")]), max_size=2
)
members = st.one_of(
    st.builds(lambda path, data, mode: tars.member(path, data, mode=mode), paths, st.binary(max_size=600), modes),
    st.builds(lambda path, mode: tars.directory(path, mode=mode), st.one_of(plain, st.just(b"./")), modes),
    st.builds(tars.symlink, plain, st.sampled_from([b"a", b"/b", b"../c", b"nowhere", b"a/b"])),
    st.builds(tars.hardlink, plain, plain),
    st.builds(lambda path: tars.member(path, flag=b"3", device=(0, 0)), plain),
    st.builds(lambda found, member: tars.pax(found) + member, records, st.builds(tars.member, plain)),
)
archives = st.lists(members, min_size=1, max_size=9).map(lambda parts: b"".join(parts) + tars.END)
numbers = itertools.count()


def _index_of(tar: bytes) -> Index | None:
    index = Index()
    try:
        add_entries(index, TarParser(), tar)
    except Unindexable:
        return None
    return index


def _seen(tar: bytes, place: Path, *, unpacks: bool) -> object:
    """What the layer shows, or that it is refused."""
    writer = LayerWriter(place / f"layer{next(numbers)}", unpacks=unpacks)
    try:
        writer.write(tar)
        form = writer.seal(digest_of(tar)).form
        if form == "dir":
            assert difference(writer.directory / "root", _index_of(tar)) == ""
            return describe(writer.directory / "root")
        mounted = place / "mounted"
        mounted.mkdir(exist_ok=True)
        options = f"ro,device={writer.directory / 'tar'}"
        subprocess.run(["mount", "-t", "erofs", "-o", options, writer.directory / "index", mounted], check=True)
        try:
            return describe(mounted)
        finally:
            subprocess.run(["umount", mounted], check=True)
    except HavreError:
        return "refused"
    finally:
        writer.discard()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("forms")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(archives)
def test_both_forms_show_the_same(place: Path, tar: bytes) -> None:
    assert _seen(tar, place, unpacks=False) == _seen(tar, place, unpacks=True)

"""Files that say where plugins are."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from havre.errors import Failed
from havre.plugins.discovery import Address, Directories, TlsFiles, find, names


def listen(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def directories(tmp_path: Path) -> Directories:
    return Directories(sockets=(tmp_path / "run",), specs=(tmp_path / "etc", tmp_path / "lib"))


def test_sockets_come_before_specs_and_specs_before_json(directories: Directories, tmp_path: Path) -> None:
    assert find(directories, "a") is None
    assert names(directories) == []
    write(tmp_path / "lib/a.json", '{"Name": "a", "Addr": "tcp://localhost:9"}')
    assert find(directories, "a") == Address(host="localhost:9")
    write(tmp_path / "lib/a/a.spec", "unix:///x/a.sock\n")
    assert find(directories, "a") == Address(socket=Path("/x/a.sock"))
    write(tmp_path / "etc/a.spec", "http://localhost:8/")
    assert find(directories, "a") == Address(host="localhost:8")
    listen(tmp_path / "run/a/a.sock")
    assert find(directories, "a") == Address(socket=tmp_path / "run/a/a.sock")
    listen(tmp_path / "run/a.sock")
    assert find(directories, "a") == Address(socket=tmp_path / "run/a.sock")


def test_names_are_those_of_files_in_their_place(directories: Directories, tmp_path: Path) -> None:
    listen(tmp_path / "run/one.sock")
    listen(tmp_path / "run/two/two.sock")
    write(tmp_path / "etc/three.spec", "unix:///x")
    for other in ("run/x/y.sock", "run/x/deep/deep.sock", "etc/README", "lib/one.sock"):
        write(tmp_path / other, "")
    assert names(directories) == ["one", "three", "two"]


@pytest.mark.parametrize("name", ["", ".", "..", "../a", "a/b", ".hidden", "a\0"])
def test_a_name_is_no_path(directories: Directories, name: str) -> None:
    assert find(directories, name) is None


def test_tls_is_described_by_files(directories: Directories, tmp_path: Path) -> None:
    write(
        tmp_path / "etc/a.json", '{"Addr": "https://h:1", "TLSConfig": {"CAFile": "/ca", "InsecureSkipVerify": true}}'
    )
    address = find(directories, "a")
    assert address == Address(host="h:1", tls=TlsFiles(ca="/ca", insecure=True))
    assert address.scheme == "https"


@pytest.mark.parametrize(
    ("file", "text"),
    [("a.spec", ""), ("a.spec", "nonsense"), ("a.spec", "unix://relative"), ("a.json", "{}"), ("a.json", "[1")],
)
def test_files_that_say_nothing_useful(directories: Directories, tmp_path: Path, file: str, text: str) -> None:
    write(tmp_path / "etc" / file, text)
    with pytest.raises(Failed, match="plugin file"):
        find(directories, "a")

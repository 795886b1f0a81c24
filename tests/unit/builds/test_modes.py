"""Permission bits of `--chmod`, compared with chmod(1) itself."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from havre.builds.modes import Mode, parse_mode
from havre.errors import InvalidInput

_TEXTS = (
    "644", "0755", "4755", "u=rwX,go=rX", "+x", "a-w", "u+s", "g+s,o-rwx", "u=rw,g=u,o=", "go-w+x", "a=rX", "o+t", "+t",
    "u=g", "-x", "ug+rw,o=r", "a+X",
)  # fmt: skip


@pytest.mark.parametrize("text", _TEXTS)
def test_as_chmod(tmp_path: Path, text: str) -> None:
    os.umask(before := os.umask(0))
    for is_directory in (False, True):
        for mode in (0o644, 0o755, 0o600, 0o711):
            path = tmp_path / f"{is_directory}-{mode:o}"
            path.mkdir() if is_directory else path.touch()
            path.chmod(mode)
            subprocess.run(["chmod", text, str(path)], check=True, umask=0)
            found = parse_mode(text)
            assert found is not None
            assert f"{found.of(mode, is_directory=is_directory):o}" == f"{path.stat().st_mode & 0o7777:o}"
    os.umask(before)


def test_none_and_octal() -> None:
    assert parse_mode("") is None
    assert parse_mode("640") == Mode(0o640)


@pytest.mark.parametrize("text", ["abc", "8", "10000", "u=rwz", "u", "=rw,", "u~r", "-1", "0o644"])
def test_what_is_none(text: str) -> None:
    with pytest.raises(InvalidInput, match="invalid chmod parameter"):
        parse_mode(text)

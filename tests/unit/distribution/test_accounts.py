"""Accounts of our registry: htpasswd files and what is made of them."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from havre.distribution import accounts as room
from havre.distribution.accounts import Accounts, parse
from havre.errors import InvalidInput
from support.registry import HTPASSWD, PASSWORD, USER


@pytest.mark.parametrize(
    "text", ["", "# nobody\n", "user\n", "user:plain\n", ":$2y$05$" + "a" * 53, "u:$2y$05$" + "a" * 52]
)
def test_bad_files_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse(text)


def test_a_file_that_changes(tmp_path: Path) -> None:
    file = tmp_path / "accounts"
    file.write_text("# ours\n\n" + HTPASSWD)

    async def work() -> None:
        accounts = Accounts(file)
        assert await accounts.check(USER, PASSWORD)
        assert await accounts.check(USER, PASSWORD)
        assert not await accounts.check(USER, "wrong")
        assert not await accounts.check(USER, "x" * 100)
        assert not await accounts.check("nobody", PASSWORD)
        file.write_text("broken\n")
        assert await accounts.check(USER, PASSWORD)
        file.write_text(HTPASSWD.replace(USER, "another"))
        os.utime(file, ns=(1, 1))
        assert not await accounts.check(USER, PASSWORD)
        assert await accounts.check("another", PASSWORD)

    asyncio.run(work())


def test_unknown_users_cost_as_much_as_known_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "accounts"
    file.write_text(HTPASSWD)
    worked: list[bytes] = []
    monkeypatch.setattr(room, "_matches", lambda password, stored: worked.append(stored) or True)

    async def work() -> None:
        assert not await Accounts(file).check("nobody", PASSWORD)

    asyncio.run(work())
    assert worked == [HTPASSWD.strip().partition(":")[2].encode()]

"""The user's config.json, as docker's command line reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from havre.client.config import Config
from havre.errors import InvalidInput


def read(tmp_path: Path, text: str) -> Config:
    (tmp_path / "config.json").write_text(text)
    return Config(str(tmp_path))


def test_null_is_as_good_as_absent(tmp_path: Path) -> None:
    text = '{"auths": null, "psFormat": null, "credHelpers": {"a": null, "b": "store"}, "proxies": {"default": null}}'
    assert read(tmp_path, text).values == {"credHelpers": {"b": "store"}, "proxies": {}}
    assert read(tmp_path, "null").values == {}
    assert read(tmp_path, "").values == {}


@pytest.mark.parametrize("text", ["[]", "5", "{", '{"auths":' + "[" * 100_000])
def test_what_is_no_configuration_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidInput, match=r"cannot read .*/config\.json: "):
        read(tmp_path, text)

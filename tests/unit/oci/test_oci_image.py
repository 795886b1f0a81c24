"""An image's configuration that another engine wrote."""

from __future__ import annotations

import pytest

from havre.errors import InvalidInput
from havre.oci.image import decode_image


def test_null_is_as_good_as_absent() -> None:
    image = decode_image(
        b'{"architecture":"amd64","os":null,"rootfs":{"type":"layers","diff_ids":null},"history":null}'
    )
    assert (image.rootfs.diff_ids, image.os, image.architecture) == ((), "", "amd64")


def test_keys_in_any_case_as_go_reads_them() -> None:
    image = decode_image(b'{"Architecture":"amd64","OS":"linux","RootFS":{"Type":"layers","DIFF_IDS":[]}}')
    assert (image.architecture, image.os) == ("amd64", "linux")


@pytest.mark.parametrize("body", [b'{"rootfs":5}', b'{"rootfs":{"diff_ids":[null]}}', b"[]", b'{"os":null', b""])
def test_other_kinds_are_refused(body: bytes) -> None:
    with pytest.raises(InvalidInput, match=r"invalid (image configuration|digest)"):
        decode_image(body)

"""What strangers' JSON may leave out, and how."""

from __future__ import annotations

import pytest

from havre.errors import InvalidInput
from havre.oci.image import decode_image


def test_null_is_as_good_as_absent() -> None:
    image = decode_image(
        b'{"architecture":"amd64","os":null,"rootfs":{"type":"layers","diff_ids":null},"history":null}'
    )
    assert (image.rootfs.diff_ids, image.os, image.architecture) == ((), "", "amd64")


@pytest.mark.parametrize(
    "body", [b'{"rootfs":5}', b'{"rootfs":{"diff_ids":[null]}}', b"null", b"[]", b'{"os":null', b""]
)
def test_other_kinds_are_refused(body: bytes) -> None:
    with pytest.raises(InvalidInput, match="invalid image configuration"):
        decode_image(body)

"""Foreign bytes as BuildKit's messages, and foreign options: refused in our words or read, never a crash."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from havre.api.buildkit.filesync import parse_stat
from havre.api.buildkit.messages import SolveRequest, Stat
from havre.api.buildkit.options import FRONTEND, parse_options
from havre.api.buildkit.protobuf import decode, encode
from havre.api.buildkit.sessionmessages import Packet
from havre.errors import HavreError

_KEYS = st.sampled_from(
    [
        *("filename", "target", "no-cache", "platform", "ulimit", "shm-size", "add-hosts", "context", "build-arg:A"),
        *(
            "label:l",
            "context:c",
            "force-network-mode",
            "attest:sbom",
            "attest:provenance",
            "vcs:source",
            "image-resolve-mode",
        ),
    ]
)


@given(st.binary(max_size=200))
def test_bytes_as_a_message(data: bytes) -> None:
    for kind in (SolveRequest, Packet):
        with contextlib.suppress(ValueError):
            again = decode(kind, data)
            assert decode(kind, encode(again)) == again


@given(st.builds(Stat, path=st.text(), mode=st.integers(0, 2**32 - 1), mtime=st.integers(-(2**63), 2**63 - 1)))
def test_any_stat(described: Stat) -> None:
    with contextlib.suppress(HavreError, UnicodeEncodeError):
        entry = parse_stat(described)
        assert entry is None or 0 <= entry.mode <= 0o7777


@given(st.dictionaries(_KEYS, st.text(max_size=20)))
def test_any_options(attrs: dict[str, str]) -> None:
    with contextlib.suppress(HavreError):
        parse_options(FRONTEND, attrs, ref="r", tags=(), store=True, entitlements=())

"""Bytes that an image or a user gives to the runtime: whatever they are, the answer is a value or a HavreError."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from havre.errors import HavreError
from havre.runtime import messages
from havre.runtime.seccomp import render_seccomp
from havre.runtime.security import parse_security_opts
from havre.runtime.spec import _check_cwd
from havre.runtime.users import MAX_ID, resolve_user

LINES = st.text(alphabet="ab01:,#\n\0é-x", max_size=80)
KEYS = st.sampled_from(
    ["defaultAction", "syscalls", "names", "name", "action", "args", "includes", "caps", "minKernel", "archMap", "x"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(LINES | st.binary(max_size=80).map(lambda data: data.decode(errors="replace")), LINES, st.text(max_size=8))
def test_passwd_and_group_files(passwd: str, group: str, user: str) -> None:
    with tempfile.TemporaryDirectory(prefix="havre-runtime-fuzz-") as directory:
        (Path(directory) / "etc").mkdir()
        (Path(directory) / "etc/passwd").write_bytes(passwd.encode(errors="replace"))
        (Path(directory) / "etc/group").write_bytes(group.encode(errors="replace"))
        try:
            found = resolve_user(Path(directory), user, ["a"])
        except HavreError:
            return
        assert all(0 <= number <= MAX_ID for number in (found.uid, found.gid, *found.groups))


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(KEYS, JSON, max_size=6))
def test_seccomp_profiles(profile: Any) -> None:
    try:
        rendered = render_seccomp(profile, capabilities=(), machine="x86_64", kernel=(6, 12))
    except HavreError:
        return
    assert all(rule["names"] and rule["action"] is not None for rule in rendered["syscalls"])


@given(st.text(max_size=40))
def test_security_options(opt: str) -> None:
    try:
        parse_security_opts([opt, f"seccomp={opt}"])
    except HavreError:
        return


@given(st.text(max_size=80))
def test_messages_are_text(said: str) -> None:
    assert ": unknown" in messages.create_failed("crun", said).message


@given(st.lists(st.sampled_from(["proc", "self", "fd", "7", "..", ".", "", "x", "dev", "cwd"]), max_size=8))
def test_no_way_through_a_descriptor(parts: list[str]) -> None:
    cwd = "/" + "/".join(parts)
    try:
        _check_cwd(cwd)
    except HavreError:
        return
    # What is let through never walks into a descriptor directory, whatever `..` does later.
    walked: list[str] = []
    for part in parts:
        if part == "..":
            del walked[-1:]
        elif part not in ("", "."):
            walked.append(part)
        assert walked[:3] not in (["proc", "self", "fd"], ["proc", "self", "cwd"], ["proc", "7", "fd"])

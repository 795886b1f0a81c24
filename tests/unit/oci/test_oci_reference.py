"""Names of images, against what docker makes of them (dockerd 26.1.5)."""

from __future__ import annotations

import pytest

from havre.errors import InvalidInput
from havre.oci.reference import parse_reference, parse_repository

HEX = "a15a819f874125eab9e3c6fdf0beeb0f9fc6a22dd735aa7695eb6fdc5df8e95b"


@pytest.mark.parametrize(
    ("text", "canonical", "familiar"),
    [
        ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
        ("user/app", "docker.io/user/app:latest", "user/app:latest"),
        ("docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("index.docker.io/library/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("docker.io/library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("localhost:5000/app:x", "localhost:5000/app:x", "localhost:5000/app:x"),
        ("host:5000/a/b/c", "host:5000/a/b/c:latest", "host:5000/a/b/c:latest"),
        ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"),
        ("A/b", "A/b:latest", "A/b:latest"),
        ("a__b/c--d.e_f", "docker.io/a__b/c--d.e_f:latest", "a__b/c--d.e_f:latest"),
        (f"x@sha256:{HEX}", f"docker.io/library/x@sha256:{HEX}", f"x@sha256:{HEX}"),
        (f"x:1@sha256:{HEX}", f"docker.io/library/x:1@sha256:{HEX}", f"x:1@sha256:{HEX}"),
    ],
)
def test_normalised(text: str, canonical: str, familiar: str) -> None:
    ref = parse_reference(text).with_default_tag()
    assert (ref.canonical(), ref.familiar()) == (canonical, familiar)
    assert parse_reference(ref.canonical()) == ref == parse_reference(ref.familiar())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "invalid reference format"),
        ("x:", "invalid reference format"),
        ("x:a/b", "invalid reference format"),
        ("/x", "invalid reference format"),
        ("x/", "invalid reference format"),
        ("a..b", "invalid reference format"),
        ("-a", "invalid reference format"),
        ("x\n", "invalid reference format"),
        ("x:1\n", "invalid reference format"),
        ("x@sha256:abc", "invalid reference format"),
        (f"x@sha512:{HEX}", "invalid reference format"),
        (f"x@sha256:{HEX}@sha256:{HEX}", "invalid reference format"),
        ("../x", "invalid reference format"),
        ("Foo", "invalid reference format: repository name (library/Foo) must be lowercase"),
        ("a/Foo:B", "invalid reference format: repository name (a/Foo) must be lowercase"),
        ("a/" + "b" * 300, "repository name must not be more than 255 characters"),
        (HEX, f"invalid repository name ({HEX}), cannot specify 64-byte hexadecimal strings"),
    ],
)
def test_refused(text: str, words: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        parse_reference(text)
    assert refusal.value.message == words


def test_name_and_tag_apart() -> None:
    assert parse_repository("x", "1").familiar() == "x:1"
    assert parse_repository("x:1", "").familiar() == "x:1"
    assert parse_repository("x", f"sha256:{HEX}").familiar() == f"x@sha256:{HEX}"
    with pytest.raises(InvalidInput, match="invalid tag format"):
        parse_repository("x", "a:b")

"""Manifests, indexes, platforms and configurations: what is read, chosen and refused."""

from __future__ import annotations

import json
import platform as host
from typing import Any

import pytest

from havre.errors import InvalidInput, NotFound, Unsupported
from havre.oci import mediatypes
from havre.oci.digest import Digest, digest_of
from havre.oci.image import ImageConfig, RootFs, chain_ids, decode_image, encode_image
from havre.oci.manifest import Descriptor, Index, Manifest, choose_manifest, decode_document, render_manifest
from havre.oci.platform import Platform, is_native, parse_platform, platform_of_machine, platform_of_processor

D = digest_of(b"x")


def blob(media_type: str = mediatypes.OCI_LAYER_GZIP, **fields: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": D, "size": 3, **fields}


def manifest(**fields: Any) -> dict[str, Any]:
    return {"schemaVersion": 2, "config": blob(mediatypes.OCI_CONFIG), "layers": [blob()], **fields}


def decode(document: dict[str, Any], media_type: str = "") -> Manifest | Index:
    return decode_document(json.dumps(document).encode(), media_type)


@pytest.mark.parametrize("media_type", [*mediatypes.MANIFESTS, ""])
def test_manifest_by_its_own_word_or_the_registrys(media_type: str) -> None:
    for document in (decode(manifest(mediaType=media_type)), decode(manifest(), f"{media_type}; charset=utf-8")):
        assert isinstance(document, Manifest)
        assert document.media_type == (media_type or mediatypes.OCI_MANIFEST)
        assert document.layers[0].digest == D


@pytest.mark.parametrize(
    ("document", "media_type", "error", "words"),
    [
        ({"schemaVersion": 1, "fsLayers": []}, "", Unsupported, "schema 1 are not supported"),
        (manifest(), mediatypes.SCHEMA1[1], Unsupported, "schema 1 are not supported"),
        (manifest(mediaType=mediatypes.OCI_INDEX), "", InvalidInput, "must not have layers"),
        ({"manifests": [], "mediaType": mediatypes.OCI_MANIFEST}, "", InvalidInput, "must not have manifests"),
        (manifest(mediaType=mediatypes.OCI_MANIFEST), mediatypes.DOCKER_MANIFEST, InvalidInput, "says it is"),
        ({"schemaVersion": 2}, "", InvalidInput, "neither"),
        (manifest(layers=[blob(size=-1)]), "", InvalidInput, "invalid size"),
        (manifest(layers=[blob(size=1 << 50)]), "", InvalidInput, "invalid size"),
        (manifest(layers=[blob(digest="sha256:../../etc")]), "", InvalidInput, "invalid digest"),
        (manifest(layers=[blob()] * 501), "", InvalidInput, "501 entries"),
        (manifest(layers="x"), "", InvalidInput, "layers: expected array"),
        ([1], "", InvalidInput, "invalid manifest"),
    ],
)
def test_refused(document: Any, media_type: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        decode(document, media_type)


@pytest.mark.parametrize("media_type", ["", *mediatypes.MANIFESTS, *mediatypes.INDEXES])
@pytest.mark.parametrize("document", [manifest(manifests=[blob()]), {"manifests": [], "layers": []}])
def test_cve_2021_41190_ambiguous_manifest(document: dict[str, Any], media_type: str) -> None:
    with pytest.raises(InvalidInput, match="ambiguous"):
        decode(document, media_type)


def test_too_large_is_refused_unread() -> None:
    with pytest.raises(InvalidInput, match="at most"):
        decode_document(b" " * (5 << 20))


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(InvalidInput, match="invalid manifest"):
        decode_document(b'{"x":' * 200_000)


def test_rendered_as_dockerd_does() -> None:
    """The digest is that of dockerd's push of the same image: the bytes agree."""
    config = Descriptor(mediatypes.DOCKER_CONFIG, D, 871)
    body = render_manifest(config, [Descriptor(mediatypes.DOCKER_LAYER_GZIP, D, 106)], mediatypes.DOCKER_MANIFEST)
    assert len(body) == 523
    assert body.startswith(b'{\n   "schemaVersion": 2,\n   "mediaType": "application/vnd.docker.')
    assert isinstance(decode_document(body), Manifest)


def index_of(*platforms: str) -> Index:
    entries = [
        Descriptor(mediatypes.OCI_MANIFEST, digest_of(p.encode()), 1, platform=parse_platform(p)) for p in platforms
    ]
    return Index(mediatypes.OCI_INDEX, tuple(entries))


@pytest.mark.parametrize(
    ("offered", "wanted", "chosen"),
    [
        (["linux/arm64", "linux/amd64"], "linux/amd64", "linux/amd64"),
        (["linux/arm64"], "linux/arm64/v8", "linux/arm64"),
        (["linux/arm/v5", "linux/arm/v6", "linux/arm/v7"], "linux/arm/v7", "linux/arm/v7"),
        (["linux/arm/v5", "linux/arm/v6"], "linux/arm/v7", "linux/arm/v6"),
        (["windows/amd64", "linux/amd64"], "amd64", "linux/amd64"),
    ],
)
def test_best_platform(offered: list[str], wanted: str, chosen: str) -> None:
    assert choose_manifest(index_of(*offered), parse_platform(wanted)).digest == digest_of(chosen.encode())


def test_no_platform_fits() -> None:
    with pytest.raises(NotFound, match="no matching manifest for linux/amd64 in the manifest list entries") as refusal:
        choose_manifest(index_of("linux/arm64", "unknown/unknown"), parse_platform("linux/amd64"))
    assert refusal.value.hint == "the image is offered for linux/arm64"


def test_half_a_platform() -> None:
    own = platform_of_machine(host.machine()).architecture
    assert str(parse_platform("linux")) == f"linux/{own}"
    assert str(parse_platform("Arm64")) == "linux/arm64"
    assert str(parse_platform("armhf")) == "linux/arm/v7"
    with pytest.raises(InvalidInput, match='"foo": unknown operating system or architecture'):
        parse_platform("foo")


@pytest.mark.parametrize("text", ["", "a/b/c/d", "linux/", "linux/a b", "/amd64"])
def test_platform_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="invalid platform"):
        parse_platform(text)


def test_platform_of_this_machine() -> None:
    assert str(platform_of_machine("x86_64")) == "linux/amd64"
    assert platform_of_machine("aarch64").same_as(Platform("arm64", "linux"))


V2 = ("cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3")
V3 = ("abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave")
AVX512 = ("avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl")


@pytest.mark.parametrize(
    ("machine", "flags", "shown"),
    [
        ("x86_64", (), "linux/amd64/v1"),
        ("x86_64", V2, "linux/amd64/v2"),
        ("x86_64", (*V2, *V3), "linux/amd64/v3"),
        ("x86_64", (*V2, *V3, *AVX512), "linux/amd64/v4"),
        ("x86_64", (*V2, *AVX512), "linux/amd64/v2"),
        ("aarch64", (), "linux/arm64/v8"),
    ],
)
def test_platform_of_a_processor(machine: str, flags: tuple[str, ...], shown: str) -> None:
    assert str(platform_of_processor(machine, flags)) == shown


@pytest.mark.parametrize(
    ("image", "processor", "native"),
    [
        ("linux/amd64", "linux/amd64/v1", True),
        ("linux/amd64/v3", "linux/amd64/v3", True),
        ("linux/amd64/v3", "linux/amd64/v2", False),
        ("linux/amd64/odd", "linux/amd64/v4", False),
        ("linux/386", "linux/amd64/v2", True),
        ("linux/arm64", "linux/amd64/v2", False),
        ("windows/amd64", "linux/amd64/v2", False),
        ("linux/arm64", "linux/arm64/v8", True),
        ("linux/arm64/v8.2", "linux/arm64/v8", False),
        ("linux/arm/v7", "linux/arm64/v8", True),
        ("linux/amd64", "linux/arm64/v8", False),
        ("linux/arm/v6", "linux/arm/v7", True),
        ("linux/arm/v7", "linux/arm/v6", False),
    ],
)
def test_native_images(image: str, processor: str, native: bool) -> None:
    assert is_native(parse_platform(image), parse_platform(processor)) is native


def test_chain_ids() -> None:
    """The third value is from the OCI image specification's rule, computed by hand with sha256sum."""
    one, two = digest_of(b"1"), digest_of(b"2")
    assert chain_ids([]) == []
    assert chain_ids([one, two]) == [one, digest_of(f"{one} {two}".encode())]


def test_configuration_read_and_written() -> None:
    image = ImageConfig(architecture="amd64", os="linux", rootfs=RootFs(diff_ids=(D,)), config={"Cmd": ["sh"]})
    body = encode_image(image)
    assert json.loads(body) == {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [D]},
    }
    assert decode_image(body) == image


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"rootfs":{"diff_ids":["x"]}}', b"\xff"])
def test_configuration_refused(body: bytes) -> None:
    with pytest.raises(InvalidInput, match="invalid"):
        decode_image(body)


def test_foreign_layers_are_layers() -> None:
    assert mediatypes.is_layer(mediatypes.DOCKER_FOREIGN_LAYER)
    assert mediatypes.is_foreign(mediatypes.OCI_FOREIGN_PREFIX + "+gzip")
    assert not mediatypes.is_layer("application/vnd.cncf.helm.chart.content.v1.tar+gzip")
    assert Digest(D) == D

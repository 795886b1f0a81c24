"""Pulling signed images: what cosign leaves in a registry is believed only if every part of it is right."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from havre.errors import Forbidden, InvalidInput
from havre.images.images import Images
from havre.oci import mediatypes
from havre.oci.digest import Digest, digest_of
from havre.oci.manifest import describe
from havre.oci.reference import Reference, parse_reference
from havre.registry import Policy, PublicKey, Registry, RegistryConfig
from havre.registry.signatures import ANNOTATION, ARTIFACT, PAYLOAD, TYPE
from support.engines import Havred, serving
from support.imagery import PlainStorage, archive, config_of, layer_tar, stream
from support.registry import RealRegistry, own_registry

LAYER = layer_tar("signed")
ARCHIVE = archive(
    {
        "0.tar": LAYER,
        "c.json": config_of(LAYER),
        "manifest.json": json.dumps([{"Config": "c.json", "RepoTags": ["x:1"], "Layers": ["0.tar"]}]).encode(),
    }
)
KEY, OTHER = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRegistry]:
    with own_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


def pem(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def signed(payload: bytes, key: ec.EllipticCurvePrivateKey = KEY) -> str:
    return base64.b64encode(key.sign(payload, ec.ECDSA(SHA256()))).decode()


def payload_for(digest: str, kind: str = TYPE) -> bytes:
    identity = {"docker-reference": ""}
    return json.dumps(
        {"critical": {"identity": identity, "image": {"docker-manifest-digest": digest}, "type": kind}}
    ).encode()


@asynccontextmanager
async def opened(root: Path, policy: Policy | None = None) -> AsyncIterator[tuple[Images, Registry, PlainStorage]]:
    registry = Registry(RegistryConfig())
    async with PlainStorage.open(root) as storage:
        images = await Images.open(storage, registry, lambda *_: None, lambda _: (), policy)  # type: ignore[arg-type]
        yield images, registry, storage
    await registry.close()


async def pushed(images: Images, name: str) -> Digest:
    """Push an image as `name` and forget it here; the digest that the name stands for."""
    lines = []
    await images.load(stream(ARCHIVE), lambda _: None)
    repository, _, tag = name.rpartition(":")
    await images.tag("x:1", repository, tag)
    await images.push(repository, tag, progress=lines.append)
    for each in ("x:1", name):
        await images.remove(each)
    return Digest(next(line.aux["Digest"] for line in lines if line.aux))


async def attach(
    registry: Registry, ref: Reference, digest: Digest, payload: bytes, signature: str, *, referrer: bool = False
) -> None:
    """Leave a signature of `digest` in the registry as cosign does: under its tag, or as a referrer."""
    config = b"{}"
    layer = {
        "mediaType": PAYLOAD,
        "digest": digest_of(payload),
        "size": len(payload),
        "annotations": {ANNOTATION: signature},
    }
    media_type = ARTIFACT if referrer else mediatypes.OCI_CONFIG
    manifest: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_MANIFEST,
        "config": {"mediaType": media_type, "digest": digest_of(config), "size": len(config)},
        "layers": [layer],
    }
    if referrer:
        manifest |= {
            "subject": {"mediaType": mediatypes.DOCKER_MANIFEST, "digest": digest, "size": 1},
            "artifactType": ARTIFACT,
        }
    body = json.dumps(manifest).encode()
    for document in (config, payload):
        await registry.push_document(ref, document)
    place = ref.with_digest(digest_of(body)) if referrer else ref.with_tag(digest.replace(":", "-") + ".sig")
    await registry.push_manifest(place, describe(mediatypes.OCI_MANIFEST, body).media_type, body)


def play(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 60))


@pytest.mark.parametrize("referrer", [False, True], ids=["by tag", "as a referrer"])
def test_signed_image_is_pulled(registry: RealRegistry, tmp_path: Path, referrer: bool) -> None:
    async def work() -> None:
        name = f"{registry.host}/good-{str(referrer).lower()}:1"
        async with opened(tmp_path, Policy({registry.host: PublicKey(pem(KEY), "ours")})) as (images, client, _):
            digest, ref = await pushed(images, name), parse_reference(name)
            wrong = payload_for(digest)
            await attach(client, ref, digest, wrong, signed(wrong, OTHER), referrer=referrer)
            payload = payload_for(digest) + b" "
            await attach(client, ref, digest, payload, signed(payload), referrer=referrer)
            await images.pull(name, progress=lambda _: None, verify=pem(KEY))
            assert images.resolve(name)

    play(work)


DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    "forge",
    [
        pytest.param(lambda digest: (payload_for(digest), signed(payload_for(digest), OTHER)), id="wrong key"),
        pytest.param(lambda digest: (payload_for(DIGEST), signed(payload_for(DIGEST))), id="wrong digest"),
        pytest.param(lambda digest: (payload_for(digest), signed(payload_for(DIGEST))), id="tampered payload"),
        pytest.param(lambda digest: (payload_for(digest), ""), id="empty signature"),
        pytest.param(lambda digest: (payload_for(digest), "no base64!"), id="garbage"),
        pytest.param(lambda digest: (payload_for(digest, "x"), signed(payload_for(digest, "x"))), id="other kind"),
        pytest.param(lambda digest: (b"{]", signed(b"{]")), id="no JSON"),
        pytest.param(None, id="unsigned"),
    ],
)
def test_image_that_is_not_signed_as_demanded_leaves_nothing(
    registry: RealRegistry,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    forge: Callable[[str], tuple[bytes, str]] | None,
) -> None:
    async def work() -> None:
        name = f"{registry.host}/bad-{request.node.callspec.id.replace(' ', '-').lower()}:1"
        async with opened(tmp_path) as (images, client, storage):
            digest = await pushed(images, name)
            if forge is not None:
                await attach(client, parse_reference(name), digest, *forge(digest))
            with pytest.raises(Forbidden, match="must be signed by the key"):
                await images.pull(name, progress=lambda _: None, verify=pem(KEY))
            assert images.list() == []
            assert storage.layers.all() == []
            assert storage.blobs.all() == []

    play(work)


def test_every_kind_of_key_that_cosign_writes() -> None:
    digest, payload = Digest(DIGEST), payload_for(DIGEST)
    edwards, classic = ed25519.Ed25519PrivateKey.generate(), rsa.generate_private_key(65537, 2048)
    assert PublicKey(pem(edwards), "e").signed(payload, edwards.sign(payload))
    assert PublicKey(pem(classic), "r").signed(payload, classic.sign(payload, padding.PKCS1v15(), SHA256()))
    assert not PublicKey(pem(classic), "r").signed(payload, edwards.sign(payload))
    with pytest.raises(InvalidInput, match="not a public key"):
        PublicKey(f"-----BEGIN PUBLIC KEY-----\n{digest}\n-----END PUBLIC KEY-----\n", "broken")


def test_policy_knows_the_key_of_the_longest_name() -> None:
    all_, host, folder = (PublicKey(pem(KEY), name) for name in ("all", "host", "folder"))
    policy = Policy({"*": all_, "localhost:5000": host, "localhost:5000/team": folder})
    assert policy.key_for(parse_reference("busybox")) is all_
    assert policy.key_for(parse_reference("localhost:5000/teams/x")) is host
    assert policy.key_for(parse_reference("localhost:5000/team/x:1")) is folder
    assert Policy({"docker.io/library": host}).key_for(parse_reference("a/b")) is None


def test_daemon_and_command_line_refuse_unsigned_images(tmp_path: Path) -> None:
    """The policy holds for docker's own client, too; `--verify` demands a key for one pull."""
    key = tmp_path / "cosign.pub"
    key.write_text(pem(KEY))
    with (
        serving(Havred(["--signature-key", f"localhost/strict={key}"])) as engine,
        own_registry(tmp_path / "registry", inside=engine.inside) as running,
    ):
        free, strict = f"{running.host}/free:1", f"{running.host}/strict/one:1"
        (tmp_path / "x.tar").write_bytes(ARCHIVE)
        engine.out("load", "-i", str(tmp_path / "x.tar"))
        for name in (free, strict):
            engine.out("tag", "x:1", name)
            engine.out("push", "-q", name)
            engine.out("rmi", name)
        engine.stop()
        engine.extra = ["--signature-key", f"{running.host}/strict={key}"]
        engine.start()
        refused = engine.docker("pull", strict, check=1)
        assert "must be signed by the key" in refused.stderr
        engine.out("pull", "-q", free)
        refused = engine.havre("pull", "--verify", str(key), free, check=1)
        assert "it has no signature" in refused.stderr

"""Local manifest lists, and pushing them to a registry.

    create   registry --manifest, configuration--> member --> ~/.docker/manifests/LIST/MEMBER (JSON, docker's format)
    push     for each member in another repository: mount its blobs, put its manifest by digest; then the list

A list refers to images of one registry. It is rendered as docker renders it, so that both give the same digest.
Source: OCI image specification, "image-index.md"; distribution's "manifest-list.md".
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from havre.client.auth import find_auth
from havre.client.config import Config
from havre.errors import Conflict, InvalidInput, NotFound
from havre.golang import gojson
from havre.oci import mediatypes
from havre.oci.attestation import MAX_ATTESTED, is_attestation
from havre.oci.image import decode_image
from havre.oci.manifest import MAX_CONFIG, Descriptor, Index, Manifest, decode_document
from havre.oci.names import AUTH_KEY, DEFAULT_REGISTRY
from havre.oci.platform import Platform
from havre.oci.reference import Reference, parse_reference
from havre.registry import Auth, Fetched, Registry, RegistryConfig

T = TypeVar("T")


class Member(msgspec.Struct, rename="pascal", omit_defaults=True):
    """An image of a list: reference, descriptor, its manifest byte for byte and (for readers) as JSON.

    `statements` are the content of an attestation.
    """

    ref: str
    descriptor: Descriptor
    raw: bytes = b""
    schema_v2_manifest: msgspec.Raw = msgspec.field(default=msgspec.Raw(), name="SchemaV2Manifest")
    oci_manifest: msgspec.Raw = msgspec.field(default=msgspec.Raw(), name="OCIManifest")
    statements: list[Any] = []

    @property
    def manifest(self) -> Manifest:
        """The manifest. Raises `InvalidInput` for a damaged file."""
        document = decode_document(self.raw)
        if isinstance(document, Index):
            raise InvalidInput(f"{self.ref} is a manifest list")
        return document


class ManifestLists:
    """The user's lists, and the registries they are for."""

    def __init__(self, config: Config, *, insecure: bool = False) -> None:
        self._config = config
        self._root = Path(config.directory) / "manifests"
        self._insecure = insecure

    def create(self, name: str, members: Sequence[str], amend: bool) -> str:
        """Create the list, or add to it with `amend`; returns its full name. Raises `Conflict`, `NotFound`,
        `InvalidInput`."""
        target = _named(name)
        if self._folder(target).exists() and not amend:
            raise Conflict("refusing to amend an existing manifest list with no --amend flag")
        for member in members:
            ref = _named(member)
            if not self._file(target, ref).exists():
                self._write(target, ref, self._ask(ref, partial(_member, ref)))
        return target.canonical()

    def annotate(self, name: str, member: str, platform: Mapping[str, Any]) -> None:
        """Change the platform of one member of a list."""
        target, ref = _named(name), _named(member)
        found = self._read(target).get(ref)
        if found is None:
            raise NotFound(f"manifest for image {member} does not exist in {name}")
        changed = msgspec.structs.replace(found.descriptor.platform or Platform(), **platform)
        if not changed.os or not changed.architecture:
            raise InvalidInput(
                f"manifest entry for image has unsupported os/arch combination: {changed.os}/{changed.architecture}"
            )
        self._write(target, ref, _with_platform(found, changed))

    def inspect(self, name: str, in_list: str = "", *, verbose: bool = False) -> str:
        """The text of a list or manifest: a local list's, or one from a registry."""
        ref = _named(name)
        if in_list:
            member = self._read(_named(in_list)).get(ref)
            if member is None:
                raise NotFound(f"no such manifest: {ref.canonical()}")
            return _shown(member, verbose=verbose)
        if self._folder(ref).exists():
            members = list(self._read(ref).values())
            return _json(members) if verbose else render_list(members).decode() + "\n"
        return self._ask(ref, partial(_inspect_remote, ref, verbose=verbose))

    def push(self, name: str) -> list[str]:
        """Push the list; returns messages: the members pushed, and the digest at the end."""
        target = _named(name)
        members = self._read(target)
        for ref in members:
            if ref.registry != target.registry:
                raise InvalidInput(
                    "cannot use source images from a different registry than the target image: "
                    f"{ref.registry} != {target.registry}"
                )
        return self._ask(target, partial(_push, target, members))

    def remove(self, name: str) -> None:
        """Remove a local list. `NotFound`."""
        target = _named(name)
        if not self._folder(target).exists():
            raise NotFound(f"No such manifest: {target.canonical()}")
        shutil.rmtree(self._folder(target))

    def _ask(self, ref: Reference, ask: Callable[[Registry, Auth | None], Awaitable[T]]) -> T:
        """Ask the registry of `ref` with the user's credentials for it."""
        server = AUTH_KEY if ref.registry == DEFAULT_REGISTRY else ref.registry
        known = find_auth(self._config, server)
        auth = msgspec.convert(known, Auth) if known else None
        insecure = (ref.registry,) if self._insecure else ()

        async def work() -> T:
            registry = Registry(RegistryConfig(insecure=insecure))
            try:
                return await ask(registry, auth)
            finally:
                await registry.close()

        return asyncio.run(work())

    # -- files

    def _folder(self, target: Reference) -> Path:
        return self._root / _file_name(target)

    def _file(self, target: Reference, ref: Reference) -> Path:
        return self._folder(target) / _file_name(ref)

    def _read(self, target: Reference) -> dict[Reference, Member]:
        if not self._folder(target).exists():
            raise NotFound(f"No such manifest: {target.canonical()}")
        found = {}
        for file in sorted(self._folder(target).iterdir()):
            try:
                member = msgspec.json.decode(file.read_bytes(), type=Member)
            except msgspec.DecodeError as error:
                raise InvalidInput(f"cannot read {file}: {error}", "remove that file") from error
            found[parse_reference(member.ref)] = member
        return found

    def _write(self, target: Reference, ref: Reference, member: Member) -> None:
        self._folder(target).mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = self._folder(target) / f".{os.getpid()}"
        temporary.write_bytes(msgspec.json.encode(member))
        temporary.rename(self._file(target, ref))


async def _member(ref: Reference, registry: Registry, auth: Auth | None) -> Member:
    fetched = await _manifest(registry, ref, auth)
    document = decode_document(fetched.body, fetched.media_type)
    if isinstance(document, Index):
        raise InvalidInput(f"{ref.familiar()} is a manifest list")
    return await _described(registry, ref, fetched, document, auth)


async def _described(
    registry: Registry, ref: Reference, fetched: Fetched, document: Manifest, auth: Auth | None
) -> Member:
    """A manifest with the platform in its configuration."""
    platform = Platform()
    if document.config.media_type in (mediatypes.DOCKER_CONFIG, mediatypes.OCI_CONFIG):
        platform = decode_image(await registry.document(ref, document.config, auth, MAX_CONFIG)).platform
    descriptor = Descriptor(document.media_type, fetched.digest, len(fetched.body), platform=platform)
    shown = msgspec.Raw(fetched.body)
    if document.media_type == mediatypes.OCI_MANIFEST:
        return Member(ref.canonical(), descriptor, fetched.body, oci_manifest=shown)
    return Member(ref.canonical(), descriptor, fetched.body, schema_v2_manifest=shown)


async def _manifest(registry: Registry, ref: Reference, auth: Auth | None) -> Fetched:
    try:
        return await registry.manifest(ref, auth)
    except NotFound as error:
        raise NotFound(f"no such manifest: {ref.canonical()}") from error


async def _inspect_remote(ref: Reference, registry: Registry, auth: Auth | None, *, verbose: bool) -> str:
    fetched = await _manifest(registry, ref, auth)
    document = decode_document(fetched.body, fetched.media_type)
    if isinstance(document, Manifest):
        return _shown(await _described(registry, ref, fetched, document, auth), verbose=verbose)
    if not verbose:
        return msgspec.json.format(fetched.body, indent=3).decode() + "\n"
    members = []
    for entry in document.manifests:
        member = await _member(ref.with_digest(entry.digest), registry, auth)
        if is_attestation(entry):
            parts = [await registry.document(ref, part, auth, MAX_ATTESTED) for part in member.manifest.layers]
            statements = [gojson.decode(part, Any, "invalid attestation") for part in parts]
            member = msgspec.structs.replace(member, statements=statements)
        members.append(_with_platform(member, entry.platform) if entry.platform else member)
    return _json(members)


async def _push(
    target: Reference, members: Mapping[Reference, Member], registry: Registry, auth: Auth | None
) -> list[str]:
    told = []
    for ref, member in members.items():
        if ref.repository == target.repository:
            continue
        manifest = member.manifest
        for blob in (manifest.config, *manifest.layers):
            if not await registry.mount_blob(target, blob.digest, ref.repository, auth):
                raise InvalidInput(f"the registry does not mount {blob.digest} from {ref.name}")
        here = target.with_digest(member.descriptor.digest)
        digest = await registry.push_manifest(here, manifest.media_type, member.raw, auth)
        told.append(f"Pushed ref {here.canonical()} with digest: {digest}")
    body = render_list(list(members.values()))
    told.append(await registry.push_manifest(target, _list_type(list(members.values())), body, auth))
    return told


def render_list(members: Sequence[Member]) -> bytes:
    """The document of a list: an OCI index if its first image is OCI's, else Docker's manifest list."""
    entries = [
        {
            "mediaType": member.descriptor.media_type,
            "size": member.descriptor.size,
            "digest": member.descriptor.digest,
            "platform": {
                "architecture": "",
                "os": "",
                **msgspec.to_builtins(member.descriptor.platform or Platform()),
            },
        }
        for member in members
    ]
    document = {"schemaVersion": 2, "mediaType": _list_type(members), "manifests": entries}
    return msgspec.json.format(msgspec.json.encode(document), indent=3)


def _list_type(members: Sequence[Member]) -> str:
    is_oci = bool(members) and members[0].descriptor.media_type == mediatypes.OCI_MANIFEST
    return mediatypes.OCI_INDEX if is_oci else mediatypes.DOCKER_LIST


def _with_platform(member: Member, platform: Platform) -> Member:
    descriptor = msgspec.structs.replace(member.descriptor, platform=platform)
    return msgspec.structs.replace(member, descriptor=descriptor)


def _shown(member: Member, *, verbose: bool) -> str:
    return _json(member) if verbose else _tabbed(member.raw)


def _json(value: object) -> str:
    return _tabbed(msgspec.json.encode(value))


def _tabbed(body: bytes) -> str:
    """JSON indented with tabs, as docker shows it."""
    lines = msgspec.json.format(body, indent=1).decode().splitlines()
    return "".join("\t" * (len(line) - len(line.lstrip(" "))) + line.lstrip(" ") + "\n" for line in lines)


def _named(text: str) -> Reference:
    return parse_reference(text).with_default_tag()


def _file_name(ref: Reference) -> str:
    """docker's file name for a reference."""
    return ref.canonical().replace(":", "-").replace("/", "_")

"""SBOM generators: images that scan a result's files and write in-toto statements.

    /run/src/core/sbom   the result's files, read-only          BUILDKIT_SCAN_SOURCE
    /run/out/*.json      the statements                         BUILDKIT_SCAN_DESTINATION

Their output is as hostile as any image: reading is bounded, and only the predicate and its type are taken from a
statement; the builder sets the subject.

Source: moby/buildkit docs/attestations/sbom-protocol.md.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from havre.builds.request import Sbom
from havre.builds.trees import Tree
from havre.dockerfile.mounts import RunMount
from havre.dockerfile.plan import RunAction
from havre.errors import InvalidInput
from havre.linux.idmap import IdRange
from havre.linux.openat2 import open_in_root
from havre.oci.attestation import MAX_ATTESTED, Predicate
from havre.wire.config import Config

DESTINATION = "/run/out"
_SOURCE = "/run/src/core/sbom"
_MOST = 100  # limit of statements


class _Statement(msgspec.Struct, rename="camel"):
    predicate_type: str
    predicate: msgspec.Raw


@dataclass(frozen=True)
class OneTree:
    """Views in which every name refers to the same files (`running.Views`); `mount` mounts them for other IDs."""

    files: Tree
    mount: Callable[[IdRange], Awaitable[Path]]

    async def tree(self, name: str, wanted: str) -> Tree:
        """The files."""
        return self.files

    async def mounted(self, name: str, ids: IdRange) -> Path:
        """The mount of the files for `ids`."""
        return await self.mount(ids)


def plan_generator(config: Config, asked: Sbom) -> RunAction:
    """The command of a generator's image. Raises `InvalidInput` if it has none."""
    argv = (*(config.entrypoint or ()), *(config.cmd or ()))
    if not argv:
        raise InvalidInput(f"the SBOM generator {asked.generator} has no command to run")
    return RunAction(
        argv=argv,
        env=(
            *(config.env or ()),
            f"BUILDKIT_SCAN_DESTINATION={DESTINATION}",
            f"BUILDKIT_SCAN_SOURCE={_SOURCE}",
            *(f"BUILDKIT_SCAN_{name}={value}" for name, value in sorted(asked.parameters.items())),
        ),
        user=config.user,
        cwd=config.working_dir or "/",
        mounts=(RunMount(type="tmpfs", target="/tmp"), RunMount(target=_SOURCE, from_="result", read_only=True)),
    )


def read_statements(root: Path, generator: str) -> list[Predicate]:
    """The predicates that a generator wrote, by file name. Blocking.

    Raises `InvalidInput` if there are none, too many bytes, or malformed statements.
    """
    try:
        directory = open_in_root(root, DESTINATION, os.O_RDONLY | os.O_DIRECTORY)
        try:
            names = sorted(os.listdir(directory))
        finally:
            os.close(directory)
    except OSError:
        names = []
    found: list[Predicate] = []
    left = MAX_ATTESTED
    for name in names[:_MOST]:
        data = _read(root, f"{DESTINATION}/{name}", left + 1)
        left -= len(data)
        if left < 0:
            raise InvalidInput(f"the SBOM generator {generator} has written more than {MAX_ATTESTED} bytes")
        try:
            statement = msgspec.json.decode(data, type=_Statement)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise InvalidInput(f"the SBOM generator {generator} has written {name}, no statement: {error}") from error
        found.append(Predicate(statement.predicate_type, bytes(statement.predicate)))
    if not found or len(names) > _MOST:
        raise InvalidInput(f"the SBOM generator {generator} has written {len(names)} files to {DESTINATION}")
    return found


def _read(root: Path, path: str, limit: int) -> bytes:
    """The first `limit` bytes of a regular file; empty for other types of files."""
    pinned = open_in_root(root, path, os.O_PATH | os.O_NOFOLLOW)
    try:
        if not stat.S_ISREG(os.fstat(pinned).st_mode):
            return b""
        with open(f"/proc/self/fd/{pinned}", "rb") as file:
            return file.read(limit)
    finally:
        os.close(pinned)

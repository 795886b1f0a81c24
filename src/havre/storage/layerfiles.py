"""One layer's files while they are written, and reading its tar back.

    layers/tmp-RANDOM/  --seal, rename-->  layers/HEX of the diff ID/
      form "tar"    tar       the uncompressed layer, byte for byte; the data of the files
                    index     the EROFS image over it
      form "dir"    root/     the unpacked layer, with overlayfs' whiteouts
                    tar.zst   the uncompressed layer, to reproduce its exact bytes

Form "dir" is for drivers that cannot mount an index and for layers that no index can represent. Order on disk: data,
fdatasync, index, fdatasync; the caller renames. Blocking. A writer is used by one thread at a time, but another thread
may discard it while a write is running (the waiting task was cancelled); a lock serialises the two.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import BinaryIO, Literal, Protocol, TypeAlias

import msgspec
import zstandard

from havre.errors import Failed
from havre.linux.trees import remove_tree, sync_directory
from havre.linux.writeback import start_writeback
from havre.oci.digest import Digest, hex_of
from havre.storage.erofs import Index, Unindexable
from havre.storage.unpack import Unpacker
from havre.tar.reader import Data, Entry, TarParser

Form: TypeAlias = Literal["tar", "dir"]
PIECE = 1 << 20
_ZSTD_LEVEL = 1
_WRITEBACK = 8 << 20  # bytes written between starts of writeback, so that sealing need not wait for all of them


class RootEntry(msgspec.Struct, frozen=True):
    """Metadata of the root directory in a layer. Copied to the upper directory, whose metadata an overlay shows."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    xattrs: dict[str, bytes] = {}


class Sealed(msgspec.Struct, frozen=True):
    """A layer completely written, not yet renamed: its diff ID and size."""

    diff_id: Digest
    size: int
    form: Form
    root: RootEntry | None


class _Form(Protocol):
    """One way of storing a layer."""

    def write(self, piece: bytes, members: Sequence[Entry] | None) -> None: ...
    def seal(self, diff_id: Digest) -> tuple[Form, Entry | None]: ...
    def close(self) -> None: ...


class LayerWriter:
    """Writes the uncompressed tar of one layer into `directory`, which the first write creates.

    After an `OSError` or `HavreError` it can only be discarded.
    """

    def __init__(self, directory: Path, *, unpacks: bool) -> None:
        self.directory = directory
        self._unpacks = unpacks
        self._lock = threading.Lock()
        self._size = 0
        self._open = True
        self._form: _Form | None = None

    def write(self, piece: bytes, members: Sequence[Entry] | None = None) -> None:
        """Take the next bytes of the tar and the members that end in them; None: parse them from the bytes."""
        with self._lock:
            if self._open:
                self._size += len(piece)
                self._begun().write(piece, members)

    def seal(self, diff_id: Digest) -> Sealed:
        """End of the tar with digest `diff_id`: complete all files and make them durable."""
        with self._lock:
            form, root = self._begun().seal(diff_id)
            sync_directory(self.directory)
            return Sealed(diff_id, self._size, form, _root_entry(root))

    def release(self) -> None:
        """Transfer the files to the caller: `discard` then does nothing."""
        with self._lock:
            self._open = False

    def discard(self) -> None:
        """Remove everything written, after a running write has ended. Idempotent."""
        with self._lock:
            if self._open:
                self._open = False
                if self._form is not None:
                    self._form.close()
                remove_tree(self.directory)

    def _begun(self) -> _Form:
        if self._form is None:
            self.directory.mkdir(mode=0o700)
            self._form = _UnpackedForm(self.directory) if self._unpacks else _IndexedForm(self.directory)
        return self._form


class _IndexedForm:
    """Stores the tar and builds the index meanwhile; unpacks at the end if no index can represent it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file = (directory / "tar").open("xb", buffering=0)
        self._parser = TarParser()
        self._index: Index | None = Index()
        self._size = self._handed = 0

    def write(self, piece: bytes, members: Sequence[Entry] | None) -> None:
        _write_all(self._file, piece)
        self._size += len(piece)
        if self._size - self._handed >= _WRITEBACK:
            start_writeback(self._file.fileno(), self._handed, self._size - self._handed)
            self._handed = self._size
        if self._index is not None:
            try:
                if members is None:
                    add_entries(self._index, self._parser, piece)
                for entry in members or ():
                    self._index.add(entry)
            except Unindexable:
                self._index = None

    def seal(self, diff_id: Digest) -> tuple[Form, Entry | None]:
        if self._index is not None:
            self._parser.finish()
        os.fdatasync(self._file.fileno())
        self._file.close()
        if self._index is None or not self._parser.padded:
            return self._unpack(diff_id)
        write_durably(self._directory / "index", self._index.render(uuid_of(diff_id), self._size))
        return "tar", self._index.root

    def _unpack(self, diff_id: Digest) -> tuple[Form, Entry | None]:
        tar = self._directory / "tar"
        unpacked = _UnpackedForm(self._directory)
        try:
            with tar.open("rb", buffering=0) as file:
                while piece := file.read(PIECE):
                    unpacked.write(piece, None)
            sealed = unpacked.seal(diff_id)
        finally:
            unpacked.close()
        tar.unlink()
        return sealed

    def close(self) -> None:
        self._file.close()


class _UnpackedForm:
    """Unpacks the tar below `root/`, and stores it compressed beside it."""

    def __init__(self, directory: Path) -> None:
        self._file = (directory / "tar.zst").open("xb", buffering=0)
        self._compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True).compressobj()
        (directory / "root").mkdir(mode=0o755)
        self._unpacker = Unpacker(directory / "root")
        self._parser = TarParser(data=True)

    def write(self, piece: bytes, members: Sequence[Entry] | None) -> None:
        _write_all(self._file, self._compressor.compress(piece))
        for event in self._parser.feed(piece):
            if isinstance(event, Data):
                self._unpacker.data(event)
            else:
                self._unpacker.add(event)

    def seal(self, diff_id: Digest) -> tuple[Form, Entry | None]:
        self._parser.finish()
        self._unpacker.finish()
        root = self._unpacker.root_entry
        _write_all(self._file, self._compressor.flush())
        os.fdatasync(self._file.fileno())
        self._unpacker.sync()
        self.close()
        return "dir", root

    def close(self) -> None:
        self._unpacker.close()
        self._file.close()


def build_index(tar: Path, diff_id: Digest) -> bytearray:
    """The index of a stored tar, to replace a lost one. Raises `InvalidInput`."""
    index, parser = Index(), TarParser()
    with tar.open("rb", buffering=0) as file:
        while piece := file.read(PIECE):
            add_entries(index, parser, piece)
    parser.finish()
    return index.render(uuid_of(diff_id), tar.stat().st_size)


def add_entries(index: Index, parser: TarParser, piece: bytes) -> None:
    """Add the members that `piece` completes to `index`. Raises `InvalidInput` and `Unindexable`."""
    for event in parser.feed(piece):
        if isinstance(event, Entry):
            index.add(event)


def uuid_of(diff_id: Digest) -> bytes:
    """The UUID that links an index to its tar."""
    return bytes.fromhex(hex_of(diff_id)[:32])


def read_tar(directory: Path, form: Form, diff_id: Digest) -> Generator[bytes, None, None]:
    """Yield the exact tar of a stored layer in pieces of 1 MiB. `Failed` at the end if its digest is not `diff_id`."""
    digest = hashlib.sha256()
    with (directory / ("tar" if form == "tar" else "tar.zst")).open("rb", buffering=0) as file:
        reader = file if form == "tar" else zstandard.ZstdDecompressor().stream_reader(file)
        while piece := _read_piece(reader, diff_id):
            digest.update(piece)
            yield piece
    if digest.hexdigest() != hex_of(diff_id):
        raise Failed(f"the data of layer {diff_id} is damaged", "remove its image and pull it again")


def examine(directory: Path, diff_id: Digest) -> Sealed:
    """What the files of a layer say of it, when its row is lost; `HavreError` or OSError if they are not its files."""
    form: Form = "tar" if (directory / "tar").is_file() else "dir"
    size, root, parser = 0, None, TarParser()
    for piece in read_tar(directory, form, diff_id):
        size += len(piece)
        for event in parser.feed(piece):
            if isinstance(event, Entry) and not event.path:
                root = event
    return Sealed(diff_id, size, form, _root_entry(root))


def _read_piece(reader: BinaryIO, diff_id: Digest) -> bytes:
    try:
        return reader.read(PIECE)
    except zstandard.ZstdError as error:
        raise Failed(
            f"the data of layer {diff_id} is damaged: {error}", "remove its image and pull it again"
        ) from error


def write_durably(path: Path, data: bytes | bytearray) -> None:
    """Write a new file and fsync it."""
    with path.open("xb", buffering=0) as file:
        _write_all(file, data)
        os.fdatasync(file.fileno())


def _write_all(file: BinaryIO, data: bytes | bytearray) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _root_entry(entry: Entry | None) -> RootEntry | None:
    if entry is None:
        return None
    xattrs = {os.fsdecode(name): value for name, value in entry.xattrs.items() if name.isascii()}
    mtime_ns = entry.mtime_s * 10**9 + entry.mtime_ns
    return RootEntry(mode=entry.mode, uid=entry.uid, gid=entry.gid, mtime_ns=mtime_ns, xattrs=xattrs)

"""Decompression of layer streams (gzip, zstd, xz, bzip2, detected by magic number) in bounded pieces.

    feed(chunk) -> read() -> piece, piece, ..., b"" (needs input) -> feed(chunk) -> ... -> finish()

`read` returns about `PIECE` bytes at any ratio, so a small layer that expands to a gigabyte costs time, not memory.
Streams may have several members, as pigz, zstd and estargz write them. Raises `InvalidInput` for corrupt data, a
truncated stream, and trailing data after the last member.
"""

from __future__ import annotations

import bz2
import lzma
from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeAlias

import zstandard
from isal import igzip_lib

from havre.errors import InvalidInput

PIECE = 256 << 10
_FIRST_SLICE = 1 << 12  # compressed bytes first passed to a decoder: bytes after a short member are copied
_SLICE = 1 << 18  # compressed bytes passed at once later
_ZSTD_SLICE = 1 << 12  # this decoder's output is unbounded: 4 KiB expand to at most 128 MiB
_MEMORY_LIMIT = 256 << 20  # for xz dictionaries
_MAGICS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ\0": "xz", b"BZh": "bzip2"}
_LONGEST_MAGIC = 6
_ISAL_ERROR: type[Exception] = igzip_lib.error  # type: ignore[assignment]  # isal's stub declares an instance
_DAMAGE = (_ISAL_ERROR, zstandard.ZstdError, lzma.LZMAError, OSError, EOFError, ValueError)

Buffer: TypeAlias = bytes | bytearray | memoryview


class _Decoder(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = ...) -> bytes: ...


class _Zstd:
    """Adapts zstandard's decoder to the interface of the standard library's."""

    def __init__(self, context: zstandard.ZstdDecompressor) -> None:
        self._decoder = context.decompressobj()
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._decoder.eof

    @property
    def unused_data(self) -> bytes:
        return self._decoder.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._decoder.decompress(data)


def _decoders(kind: str) -> Callable[[], _Decoder]:
    """Returns a factory: each member of a stream needs a new decoder."""
    if kind == "gzip":
        return partial(igzip_lib.IgzipDecompressor, flag=igzip_lib.DECOMP_GZIP)
    if kind == "zstd":
        return partial(_Zstd, zstandard.ZstdDecompressor(max_window_size=1 << 27))
    if kind == "xz":
        return partial(lzma.LZMADecompressor, lzma.FORMAT_XZ, memlimit=_MEMORY_LIMIT)
    return bz2.BZ2Decompressor


def kind_of(head: bytes) -> str:
    """The format of a stream by its magic number: gzip, zstd, xz, bzip2, or "" for none."""
    return next((kind for magic, kind in _MAGICS.items() if head.startswith(magic)), "")


class Decompressor:
    """Decompresses one stream, whose `kind` is None until enough bytes have arrived to detect it."""

    def __init__(self) -> None:
        self.kind: str | None = None
        self._new_decoder: Callable[[], _Decoder]  # set with the kind
        self._decoder: _Decoder | None = None
        self._slice = 0
        self._chunk = b""
        self._at = 0  # index in `_chunk` of the first byte not yet passed to a decoder
        self._over = False

    def feed(self, chunk: Buffer) -> None:
        """Add compressed bytes; all earlier output must have been read."""
        rest = self._chunk[self._at :]
        self._chunk, self._at = rest + chunk if rest else bytes(chunk), 0

    def read(self) -> bytes:
        """Return the next piece, about 256 KiB, or `b""` when more input is needed. Raises `InvalidInput`."""
        if self.kind is None:
            if len(self._chunk) < _LONGEST_MAGIC and not self._over:
                return b""
            self.kind = kind_of(self._chunk)
            self._new_decoder = _decoders(self.kind)
        if not self.kind:
            piece, self._chunk = self._chunk, b""
            return piece
        pieces: list[bytes] = []
        size = 0
        while size < PIECE and (self._at < len(self._chunk) or self._holds_back()):
            pieces.append(self._step(self.kind, PIECE - size))
            size += len(pieces[-1])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def finish(self) -> bytes:
        """End of input: returns bytes too few to be recognised. Raises `InvalidInput` in the middle of a member."""
        self._over = True
        rest = self.read()
        if self._decoder is not None and not self._decoder.eof:
            raise InvalidInput(f"layer ends in the middle of its {self.kind} stream")
        return rest

    def _holds_back(self) -> bool:
        """Report whether the decoder can produce output without new input."""
        return self._decoder is not None and not self._decoder.eof and not self._decoder.needs_input

    def _step(self, kind: str, room: int) -> bytes:
        if self._decoder is None or self._decoder.eof:
            if self._decoder is not None and self._is_padding(kind):
                return b""
            self._decoder, self._slice = self._new_decoder(), _FIRST_SLICE
        given = b""
        if self._decoder.needs_input:
            given = self._chunk[self._at : self._at + self._slice]
            self._at += len(given)
            self._slice = _ZSTD_SLICE if kind == "zstd" else _SLICE
        try:
            piece = self._decoder.decompress(given, room)
        except _DAMAGE as error:
            raise InvalidInput(f"layer is not a valid {kind} stream: {error}") from error
        if self._decoder.eof:
            self._at -= len(self._decoder.unused_data)
        return piece

    def _is_padding(self, kind: str) -> bool:
        """Skip zero padding after the last member, which some writers add; no member begins with a zero byte."""
        if self._chunk[self._at]:
            return False
        if self._chunk.count(b"\0", self._at) != len(self._chunk) - self._at:
            raise InvalidInput(f"layer has trailing data after its {kind} stream")
        self._at = len(self._chunk)
        return True

"""Decodes the fields of tar headers and the records of pax headers, from hostile bytes. Pure.

Raises `InvalidInput` for what is malformed or out of range, naming the field.

Source: pax(1), "ustar Interchange Format" and "pax Extended Header".
"""

from __future__ import annotations

from havre.errors import InvalidInput
from havre.tar.headers import BLOCK


def read_text(field: bytes) -> bytes:
    """A text in a header, which ends at the first NUL."""
    return field.partition(b"\0")[0]


def read_number(field: bytes, what: str) -> int:
    """A number in a header: octal digits among spaces and NULs, or base-256 if the first bit is set."""
    if field[0] & 0x80:
        value = int.from_bytes(field) - (1 << (8 * len(field) - 1))
        return value - (1 << (8 * len(field) - 1)) if field[0] & 0x40 else value
    digits = field.strip(b"\0 ")
    if not digits.isdigit():
        digits = digits.partition(b"\0")[0].rstrip(b" ")
        if not digits:
            return 0
    if digits.strip(b"01234567"):
        raise InvalidInput(f"invalid {what} {digits!r} in a tar header")
    return int(digits, 8)


def read_decimal(text: bytes, what: str) -> int:
    """A number in a pax record."""
    if not text.isdigit() or len(text) > 20:
        raise InvalidInput(f"invalid {what} {shown(text)} in a tar header")
    return int(text)


def require_within(value: int, low: int, high: int, what: str) -> int:
    """`value`, if it is from `low` to `high`."""
    if not low <= value <= high:
        raise InvalidInput(f"{what} {value} in a tar header is out of range")
    return value


def read_time(text: bytes) -> tuple[int, int]:
    """Seconds and nanoseconds of a pax time such as `-1.5`, which is -2 s and 500,000,000 ns."""
    negative = text.startswith(b"-")
    whole, _, fraction = text.removeprefix(b"-").partition(b".")
    ns = read_decimal(whole or b"0", "mtime") * 10**9 + read_decimal((fraction + b"000000000")[:9], "mtime")
    return divmod(-ns if negative else ns, 10**9)


def read_pax_records(data: bytes) -> list[tuple[bytes, bytes]]:
    """Records `LENGTH KEY=VALUE\\n`, in order; the length counts the whole record."""
    records, at = [], 0
    while at < len(data):
        space = data.find(b" ", at, at + 8)
        length = read_decimal(data[at:space], "pax record") if space > at else 0
        record = data[space + 1 : at + length]
        key, equals, value = record[:-1].partition(b"=")
        if not space < at + length <= len(data) or record[-1:] != b"\n" or not equals or not key:
            raise InvalidInput("malformed pax record in a tar header")
        records.append((key, value))
        at += length
    return records


def checksum_matches(block: bytes) -> bool:
    """POSIX sums unsigned bytes, some historic writers summed signed ones; both are accepted."""
    digits = block[148:156].strip(b"\0 ")
    if not digits or digits.strip(b"01234567"):
        return False
    stated = int(digits, 8)
    unsigned = sum(block) - sum(block[148:156]) + 8 * 0x20
    if stated == unsigned:
        return True
    return stated == unsigned - 256 * sum(1 for byte in block[:148] + block[156:] if byte & 0x80)


def padded_size(size: int) -> int:
    """`size` rounded up to whole blocks."""
    return -(-size // BLOCK) * BLOCK


def shown(name: bytes) -> str:
    """`name` for a message: truncated, control characters escaped."""
    return repr(name[:200].decode(errors="backslashreplace"))

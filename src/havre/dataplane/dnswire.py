"""DNS messages: parses the question of a query, encodes answers for names that we serve. Pure.

Owns the parts of RFC 1035 needed by a name server of few record types. An unreadable message yields no question (None),
never an error. `nameserver` forwards everything else as bytes, under another ID (`with_id`).

    0      2       4    6        12
    | ID | flags | QD | AN NS AR | name, type, class | records ... |

Source: RFC 1035 section 4, RFC 3596 (AAAA), RFC 6891 section 6.1.2 (maximum size of an answer).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from havre.dataplane.ipam import Address

A, PTR, MX, AAAA = 1, 12, 15, 28
NO_ERROR, FORMAT_ERROR, SERVER_FAILURE = 0, 1, 2

TTL_S = 600
"""As in dockerd: the name of a removed container stays in caches for that long."""

_HEADER = struct.Struct(">HHHHHH")
_TAIL = struct.Struct(">HH")  # type, class
_RECORD = struct.Struct(">HHHIH")  # a pointer to the question's name, type, class, TTL, length
_IN, _OPT = 1, 41
_NAME_OF_QUESTION = 0xC00C
_QR, _OPCODE, _TC, _RD, _RA, _RCODE = 0x8000, 0x7800, 0x0200, 0x0100, 0x0080, 0x000F
_UDP_BYTES, _NAME_BYTES = 512, 255


@dataclass(frozen=True, slots=True)
class Question:
    """A query's question. `name` is lower case without the final dot; `text` is its section, unchanged.

    `udp_bytes` is the maximum size of an answer by UDP.
    """

    id: int
    flags: int
    name: str
    type: int
    text: bytes
    udp_bytes: int


def parse_question(message: bytes) -> Question | None:
    """The question of a standard query with exactly one; None for any other message."""
    if len(message) < _HEADER.size:
        return None
    id, flags, count, answers, authorities, additional = _HEADER.unpack_from(message)
    if flags & (_QR | _OPCODE) or count != 1 or answers or authorities:
        return None
    labels: list[bytes] = []
    offset = _HEADER.size
    while offset < len(message) and (length := message[offset]):
        if length > 63:  # pointers are not valid in a question
            return None
        labels.append(message[offset + 1 : offset + 1 + length])
        offset += 1 + length
    end = offset + 1 + _TAIL.size
    if end > len(message) or offset - _HEADER.size > _NAME_BYTES:
        return None
    type, group = _TAIL.unpack_from(message, offset + 1)
    if group != _IN:
        return None
    name = b".".join(labels).lower().decode("latin-1")
    return Question(id, flags, name, type, message[_HEADER.size : end], _udp_bytes(message[end:], additional))


def _udp_bytes(rest: bytes, additional: int) -> int:
    """The sender's UDP payload size: the class field of an OPT record, which has the root's name and type 41."""
    if additional and len(rest) >= 5 and rest[0] == 0 and _TAIL.unpack_from(rest, 1)[0] == _OPT:
        return max(_UDP_BYTES, int(_TAIL.unpack_from(rest, 1)[1]))
    return _UDP_BYTES


def render_addresses(question: Question, addresses: Sequence[Address]) -> bytes:
    """An answer with those of the addresses that have the type asked for; possibly none."""
    version = 6 if question.type == AAAA else 4
    return _render(question, NO_ERROR, [address.packed for address in addresses if address.version == version])


def render_name(question: Question, name: str) -> bytes:
    """An answer to a reverse lookup (PTR)."""
    labels = b"".join(bytes([len(label)]) + label for label in name.encode("latin-1").split(b"."))
    return _render(question, NO_ERROR, [labels + b"\0"])


def render_code(question: Question, code: int = NO_ERROR) -> bytes:
    """An answer without records."""
    return _render(question, code, [])


def _render(question: Question, code: int, values: Sequence[bytes]) -> bytes:
    flags = _QR | _RA | (question.flags & _RD) | code
    head = _HEADER.pack(question.id, flags, 1, len(values), 0, 0)
    records = (_RECORD.pack(_NAME_OF_QUESTION, question.type, _IN, TTL_S, len(value)) + value for value in values)
    return head + question.text + b"".join(records)


def fit(question: Question, answer: bytes) -> bytes:
    """The answer as sent by UDP: if too long, only the question with the TC bit, so that the client retries by TCP."""
    if len(answer) <= question.udp_bytes:
        return answer
    (flags,) = struct.unpack_from(">H", answer, 2)
    return _HEADER.pack(question.id, flags | _TC, 1, 0, 0, 0) + question.text


def with_id(message: bytes, id: int) -> bytes:
    """The message with another ID."""
    return id.to_bytes(2, "big") + message[2:]


def answers(message: bytes, id: int, question: Question) -> bool:
    """Report whether `message` answers `question`, asked under `id`; otherwise it is forged or late."""
    if len(message) < _HEADER.size:
        return False
    got, flags, count, *_ = _HEADER.unpack_from(message)
    if got != id or not flags & _QR:
        return False
    start = _HEADER.size
    return count == 0 or message[start : start + len(question.text)].lower() == question.text.lower()


def code_of(message: bytes) -> int:
    """The response code (RCODE) of an answer."""
    return message[3] & _RCODE


def reversed_address(name: str) -> str | None:
    """The address that a name such as `4.3.2.1.in-addr.arpa` (or below `ip6.arpa`) stands for, as text."""
    if name.endswith(".in-addr.arpa"):
        parts = name.removesuffix(".in-addr.arpa").split(".")
        return ".".join(reversed(parts)) if len(parts) == 4 else None
    if name.endswith(".ip6.arpa"):
        digits = name.removesuffix(".ip6.arpa").split(".")[::-1]
        if len(digits) == 32 and all(len(digit) == 1 for digit in digits):
            return ":".join("".join(digits[i : i + 4]) for i in range(0, 32, 4))
    return None

"""The messages of the calls that BuildKit makes to its client in a session: files, accounts, secrets, agents, content.

As in `messages`: with the field numbers of the .proto files, unused fields omitted.

Source: moby/buildkit session/*/*.proto; tonistiigi/fsutil types/wire.proto; containerd
api/services/content/v1/content.proto.
"""

from __future__ import annotations

from dataclasses import dataclass

from havre.api.buildkit import protobuf as pb
from havre.api.buildkit.messages import Stat
from havre.api.buildkit.protobuf import Message

# -- the client's services


@dataclass
class Packet(Message):
    type: int = pb.number(1)
    stat: Stat | None = pb.embedded(2, Stat)
    id: int = pb.number(3)
    data: bytes = pb.data(4)


@dataclass
class BytesMessage(Message):
    data: bytes = pb.data(1)


@dataclass
class CredentialsRequest(Message):
    host: str = pb.text(1)


@dataclass
class CredentialsResponse(Message):
    username: str = pb.text(1)
    secret: str = pb.text(2)


@dataclass
class FetchTokenRequest(Message):
    client_id: str = pb.text(1)
    host: str = pb.text(2)
    realm: str = pb.text(3)
    service: str = pb.text(4)
    scopes: list[str] = pb.repeated(5, str)


@dataclass
class FetchTokenResponse(Message):
    token: str = pb.text(1)
    expires_in: int = pb.number(2)  # seconds


@dataclass
class GetSecretRequest(Message):
    id: str = pb.text(1)


@dataclass
class GetSecretResponse(Message):
    data: bytes = pb.data(1)


@dataclass
class CheckAgentRequest(Message):
    id: str = pb.text(1)


@dataclass
class CheckAgentResponse(Message):
    pass


# -- containerd's content service


@dataclass
class ReadContent(Message):
    digest: str = pb.text(1)
    offset: int = pb.number(2)
    size: int = pb.number(3)


@dataclass
class ReadContentPiece(Message):
    offset: int = pb.number(1)
    data: bytes = pb.data(2)


@dataclass
class WriteContent(Message):
    action: int = pb.number(1)
    ref: str = pb.text(2)
    total: int = pb.number(3)
    expected: str = pb.text(4)
    offset: int = pb.number(5)
    data: bytes = pb.data(6)


@dataclass
class WrittenContent(Message):
    action: int = pb.number(1)
    offset: int = pb.number(4)
    total: int = pb.number(5)
    digest: str = pb.text(6)

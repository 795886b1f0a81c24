"""A build context as a list of files, followed by the contents that the daemon lacks: the protocol of havre's daemon.

    head: names, modes, sizes, times of all contexts; secrets,
          the Dockerfile                                          -->
                                                                  <--  which files it does not have
    their contents                                                -->

The daemon's side is `api/contextlists.py`.
"""

from __future__ import annotations

from _json import encode_basestring_ascii

from havre.client.auth import base64
from havre.client.buildcontext import DirectoryContext, Member, TextContext, content_of
from havre.golang.jsontext import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from havre.client.buildcache import CacheDirectory

    Context = DirectoryContext | TextContext | CacheDirectory

CONTENT_TYPE = "application/vnd.havre.context"
_GATHER = 256 << 10


class ListedContexts:
    """The contexts of one build by name; `context` is the main one, whose `dockerfile` decides which files are
    needed."""

    def __init__(
        self, contexts: Mapping[str, Context], secrets: dict[str, bytes], dockerfile: bytes | None = None
    ) -> None:
        self._roots = {name: context.root for name, context in contexts.items()}
        self._members = {name: list(context.members()) for name, context in contexts.items()}
        self._secrets = secrets
        self._dockerfile = dockerfile

    def head(self) -> bytes:
        """The head, which is sent first."""
        contexts = ",".join(
            f'{encode(name)}:{{"Key":{encode(_key(name, self._roots[name]))},"Files":[{_rows(members)}]}}'
            for name, members in self._members.items()
        )
        secrets = encode({id: base64(value) for id, value in self._secrets.items()})
        dockerfile = encode(None if self._dockerfile is None else base64(self._dockerfile))
        return f'{{"Contexts":{{{contexts}}},"Secrets":{secrets},"Dockerfile":{dockerfile}}}\n'.encode()

    def contents(self, wanted: dict[str, list[int]]) -> Iterator[bytes]:
        """Yield the contents wanted, in large pieces. Raises OSError for an unreadable file."""
        gathered: list[bytes] = []
        size = 0
        for name, numbers in wanted.items():
            members = self._members[name]
            for number in numbers:
                gathered.append(members[number].size.to_bytes(8, "big"))
                for piece in content_of(members[number]):
                    gathered.append(piece)
                    size += len(piece)
                    if size >= _GATHER:
                        yield b"".join(gathered)
                        gathered, size = [], 0
        yield b"".join(gathered)

    def size(self, wanted: dict[str, list[int]]) -> int:
        """Total bytes of the contents wanted."""
        return sum(self._members[name][number].size for name, numbers in wanted.items() for number in numbers)


def _rows(members: list[Member]) -> str:
    return ",".join(
        f"[{_bytes(each.name)},{each.mode},{each.size},{each.mtime_ns},{_bytes(each.link)}]" for each in members
    )


def _bytes(path: str) -> str:
    """Encode a path as JSON text with one code point per byte."""
    if not path.isascii():
        path = path.encode("utf-8", "surrogateescape").decode("latin-1")
    return str(encode_basestring_ascii(path))


def _key(name: str, root: str) -> str:
    return f"{name}:{root}"

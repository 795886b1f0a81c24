"""HTTP/1.1 as a Docker client needs it, on a raw stream.

Requests with a sized or chunked body; responses that are sized, chunked or end with the connection; and hijacking:
after `101 UPGRADED` (or 200 without a length) the connection belongs to the caller as a raw two-way stream.

Source: RFC 9112; the Docker API's "attach" operation for the hijacking.
"""

from __future__ import annotations

from havre.errors import Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import TypeAlias

    from havre.client.endpoint import Stream

    Pieces: TypeAlias = Iterable[bytes | "FilePart"]
    Body: TypeAlias = bytes | Pieces | None

_CHUNK = 256 << 10
_LINE_LIMIT = 1 << 20
_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def quote(text: str, safe: str = "") -> str:
    """`text` percent-encoded, `safe` characters kept."""
    if all(c in _PLAIN or c in safe for c in text):
        return text
    data = text.encode("utf-8", "surrogateescape")
    return "".join(chr(b) if b < 128 and (chr(b) in _PLAIN or chr(b) in safe) else f"%{b:02X}" for b in data)


def render_query(query: dict[str, str | list[str]]) -> str:
    """`?a=b&c=d`, lists repeated, or "" when there is nothing."""
    pairs = []
    for name, value in query.items():
        pairs += [f"{quote(name)}={quote(item)}" for item in ([value] if isinstance(value, str) else value)]
    return "?" + "&".join(pairs) if pairs else ""


class FilePart:
    """The next `size` bytes of the open file `descriptor`, as a piece of a body; padded with zeros if the file is
    shorter."""

    __slots__ = ("descriptor", "size")

    def __init__(self, descriptor: int, size: int) -> None:
        self.descriptor = descriptor
        self.size = size

    def __len__(self) -> int:
        return self.size

    def send(self, stream: Stream) -> None:
        """Send them, with sendfile(2) where supported."""
        left = self.size
        while left and (count := stream.send_file(self.descriptor, left)):
            left -= count
        while left:
            stream.sendall(bytes(min(left, _CHUNK)))
            left -= min(left, _CHUNK)


class Reader:
    """Buffered reading of a stream by lines, counts and chunks."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.buffer = b""

    def _more(self) -> None:
        data = self.stream.recv(_CHUNK)
        if not data:
            raise _cut_short()
        self.buffer += data

    def line(self) -> bytes:
        """One line without its end. Raises Unavailable when the stream ends before it does."""
        while (end := self.buffer.find(b"\n")) < 0:
            if len(self.buffer) > _LINE_LIMIT:
                raise Unavailable("the daemon's answer is not HTTP")
            self._more()
        line, self.buffer = self.buffer[:end], self.buffer[end + 1 :]
        return line.rstrip(b"\r")

    def some(self, limit: int) -> bytes:
        """At least one and at most `limit` bytes; bytes not buffered yet are read directly."""
        if not self.buffer:
            if not (data := self.stream.recv(limit)):
                raise _cut_short()
            return data
        data, self.buffer = self.buffer[:limit], self.buffer[limit:]
        return data

    def rest(self) -> Iterator[bytes]:
        """Yield data until the stream ends."""
        data, self.buffer = self.buffer, b""
        while data or (data := self.stream.recv(_CHUNK)):
            yield data
            data = b""


def _cut_short() -> Unavailable:
    return Unavailable("the daemon closed the connection before its answer was complete", "see the daemon's log")


class Response:
    """A response whose head has been read; read its body once, by one of `read`, `chunks`, `lines` or `hijack`."""

    def __init__(self, reader: Reader, method: str) -> None:
        self._reader = reader
        self._version = ""
        self.status, self.headers = self._read_head()
        while self.status == 100:
            self.status, self.headers = self._read_head()
        self._empty = method == "HEAD" or self.status in (204, 304)
        self.reusable = self._version != "HTTP/1.0" and self.headers.get("connection", "").lower() != "close"
        self.complete = self._empty

    def _read_head(self) -> tuple[int, dict[str, str]]:
        self._version, _, rest = self._reader.line().decode("latin-1").partition(" ")
        status = rest[:3]
        if not self._version.startswith("HTTP/") or not status.isdigit():
            raise Unavailable("the daemon's answer is not HTTP", "is it a TLS socket? then give --tls or --tlsverify")
        headers: dict[str, str] = {}
        while line := self._reader.line():
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        return int(status), headers

    def chunks(self) -> Iterator[bytes]:
        """Yield the body as it arrives."""
        if self._empty:
            return
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            yield from self._chunked()
        elif "content-length" in self.headers:
            left = int(self.headers["content-length"])
            while left:
                data = self._reader.some(min(left, _CHUNK))
                left -= len(data)
                yield data
        else:
            self.reusable = False
            yield from self._reader.rest()
        self.complete = True

    def _chunked(self) -> Iterator[bytes]:
        while True:
            size = int(self._reader.line().partition(b";")[0], 16)
            if not size:
                break
            while size:
                data = self._reader.some(min(size, _CHUNK))
                size -= len(data)
                yield data
            self._reader.line()
        while self._reader.line():  # trailers
            pass

    def read(self) -> bytes:
        """The whole body."""
        return b"".join(self.chunks())

    def lines(self) -> Iterator[bytes]:
        """Yield the body's lines as they arrive, without line ends and empty lines."""
        rest = b""
        for data in self.chunks():
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                if line := line.strip():
                    yield line
        if rest := rest.strip():
            yield rest

    def hijack(self) -> tuple[Stream, bytes]:
        """The raw stream after the head, and the bytes of it that were already read."""
        return self._reader.stream, self._reader.buffer

    def fileno(self) -> int:
        """The connection's descriptor, for poll."""
        return self._reader.stream.fileno()

    def close(self) -> None:
        """Close the connection."""
        self.reusable = False
        self._reader.stream.close()


class Connection:
    """One connection, which carries one request at a time and is reused where the server allows."""

    def __init__(self, stream: Stream, host: str) -> None:
        self.reader = Reader(stream)
        self.stream = stream
        self.host = host
        self._last: Response | None = None

    def idle(self) -> bool:
        """Report whether another request may be sent."""
        return self._last is None or (self._last.complete and self._last.reusable)

    def request(self, method: str, target: str, headers: dict[str, str], body: Body = None) -> Response:
        """Send a request (an iterable body goes chunked) and read the head of its response."""
        fields = {"Host": self.host, **headers}
        if isinstance(body, bytes):
            fields["Content-Length"] = str(len(body))
        elif body is not None:
            fields["Transfer-Encoding"] = "chunked"
        elif method in ("POST", "PUT"):
            fields["Content-Length"] = "0"
        head = f"{method} {target} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in fields.items()) + "\r\n"
        try:
            self._send(head.encode("latin-1"), body)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the server rejected the request before it read the body: its answer, if any, has the reason
        self._last = Response(self.reader, method)
        return self._last

    def begin(self, method: str, target: str, headers: dict[str, str], first: bytes) -> Response:
        """Send the beginning of a request and read the head of its response; `go_on` sends the rest of the body."""
        fields = {"Host": self.host, **headers, "Transfer-Encoding": "chunked"}
        head = f"{method} {target} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in fields.items()) + "\r\n"
        try:
            self.stream.sendall(head.encode("latin-1") + b"%x\r\n%b\r\n" % (len(first), first))
        except (BrokenPipeError, ConnectionResetError):
            pass  # as in `request`
        self._last = Response(self.reader, method)
        return self._last

    def go_on(self, body: Pieces) -> None:
        """Send the rest of a body."""
        self._send(b"", body)

    def _send(self, head: bytes, body: Body) -> None:
        if body is None or isinstance(body, bytes):
            self.stream.sendall(head + (body or b""))
            return
        self.stream.sendall(head)
        for data in body:
            if isinstance(data, FilePart):
                self.stream.sendall(b"%x\r\n" % len(data))
                data.send(self.stream)
                self.stream.sendall(b"\r\n")
            elif data:
                self.stream.sendall(b"%x\r\n%b\r\n" % (len(data), data))
        self.stream.sendall(b"0\r\n\r\n")

    def close(self) -> None:
        """Close the connection."""
        self.stream.close()

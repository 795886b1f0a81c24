"""The Docker API over HTTP: JSON requests and answers, streams, hijacked connections; errors become `HavreError`.

Version: requests to havre's own default socket have no version prefix, since client and daemon are of one release. Any
other daemon first gets our version; one that rejects it as too new (matched by dockerd's text) is asked for its own by
`HEAD /_ping`, and the request is repeated. A request that cannot be repeated waits for that answer first.
"""

from __future__ import annotations

import posix

from havre import errors
from havre.client.connect import connect
from havre.client.endpoint import DEFAULT_SOCKET
from havre.client.http import Connection, quote, render_query
from havre.golang.jsontext import decode, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, TypeAlias

    from havre.client.endpoint import Endpoint, Stream
    from havre.client.http import Body, Pieces, Response

    Query: TypeAlias = dict[str, str | list[str]]

API_VERSION = "1.45"
_TOO_NEW = "is too new. Maximum supported API version is"
_USER_AGENT = "Docker-Client/26.1.5 (linux) havre"

_BY_STATUS: dict[int, type[errors.HavreError]] = {
    304: errors.NotModified,
    400: errors.InvalidInput,
    401: errors.Unauthorized,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    501: errors.Unsupported,
    503: errors.Unavailable,
}


class CannotConnect(errors.Unavailable):
    """The daemon cannot be reached."""


class Client:
    """A client of one daemon. `start_daemon` is called once when the connection is refused, before one retry.

    `proxies` are environment variables for containers and builds.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        headers: dict[str, str] | None = None,
        start_daemon: Callable[[], None] | None = None,
        proxies: dict[str, str] | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.proxies = proxies or {}
        self._headers = {"User-Agent": _USER_AGENT, **(headers or {})}
        self._start_daemon = start_daemon
        self._idle: Connection | None = None
        self._version: str | None = None
        if endpoint.scheme == "unix" and endpoint.address == DEFAULT_SOCKET:
            self._version = ""
        fixed = posix.environ.get(b"DOCKER_API_VERSION")
        if fixed:
            self._version = fixed.decode()

    @property
    def version(self) -> str:
        """The API version in use; negotiated on first need."""
        if self._version is None:
            response = self._raw("HEAD", "/_ping", {}, None)
            self._version = min_version(response.headers.get("api-version", "1.24"), API_VERSION)
        return self._version or API_VERSION

    def adopt_version(self, other: Client) -> None:
        """Use the version that `other` has negotiated."""
        self._version = other._version

    def _connect(self) -> Connection:
        try:
            stream = connect(self.endpoint)
        except OSError as error:
            if self._start_daemon is None or not isinstance(error, FileNotFoundError | ConnectionRefusedError):
                raise cannot_connect(self.endpoint, error) from error
            self._start_daemon()
            self._start_daemon = None
            try:
                stream = connect(self.endpoint)
            except OSError as again:
                raise cannot_connect(self.endpoint, again) from again
        host = self.endpoint.address if self.endpoint.scheme == "tcp" else "api.moby.localhost"
        return Connection(stream, host)

    def _raw(self, method: str, target: str, headers: dict[str, str], body: Body) -> Response:
        connection = self._idle
        if connection is None or not connection.idle():
            connection = self._connect()
        self._idle = connection
        try:
            return connection.request(method, self.endpoint.base_path + target, {**self._headers, **headers}, body)
        except ConnectionError as error:
            raise cannot_connect(self.endpoint, error) from error

    def call(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Any = None,
        *,
        raw_body: Pieces | None = None,
        headers: dict[str, str] | None = None,
    ) -> Response:
        """Send a request and return its response; `body` is sent as JSON, `raw_body` chunked.

        Raises a `HavreError` by status when that is 400 or more, `NotModified` for 304.
        """
        fields = dict(headers or {})
        data: Body = raw_body
        if body is not None:
            fields["Content-Type"] = "application/json"
            data = encode(body).encode("utf-8", "surrogateescape")
        target = quote(path, "/:@+$!',;=*()") + render_query(query or {})
        if self._version is None and raw_body is None:
            response = self._raw(method, f"/v{API_VERSION}{target}", fields, data)
            if response.status < 400:
                self._version = API_VERSION
                return response
            error = daemon_error(response)
            if not (response.status == 400 and _TOO_NEW in error.message):
                raise error
        response = self._raw(method, self._prefix() + target, fields, data)
        if response.status >= 400:
            raise daemon_error(response)
        return response

    def _prefix(self) -> str:
        return f"/v{self.version}" if self._version != "" else ""

    def converse(
        self, path: str, query: Query, first: bytes, headers: dict[str, str]
    ) -> tuple[Response, Callable[[Pieces], None]]:
        """POST a body whose rest follows after the answer has begun; returns the response and a function that sends the
        rest.

        Raises as `call` does.
        """
        version = self._prefix()
        connection = self._connect()
        target = self.endpoint.base_path + version + path + render_query(query)
        try:
            response = connection.begin("POST", target, {**self._headers, **headers}, first)
        except ConnectionError as error:
            raise cannot_connect(self.endpoint, error) from error
        if response.status >= 400:
            raise daemon_error(response)
        return response, connection.go_on

    def server(self) -> str:
        """The daemon's `Server` header."""
        response = self.call("GET", "/_ping")
        response.read()
        return response.headers.get("server", "")

    def json(self, method: str, path: str, query: Query | None = None, body: Any = None, **more: Any) -> Any:
        """The decoded body of `call`'s response, None when it is empty."""
        data = self.call(method, path, query, body, **more).read()
        return decode(data) if data.strip() else None

    def get(self, path: str, query: Query | None = None) -> Any:
        """`json("GET", ...)`."""
        return self.json("GET", path, query)

    def post(self, path: str, query: Query | None = None, body: Any = None) -> Any:
        """`json("POST", ...)`."""
        return self.json("POST", path, query, body)

    def delete(self, path: str, query: Query | None = None) -> Any:
        """`json("DELETE", ...)`."""
        return self.json("DELETE", path, query)

    def messages(self, response: Response) -> Iterator[Any]:
        """The JSON documents of a streamed response, as they arrive."""
        for line in response.lines():
            yield decode(line)

    def hijack(self, path: str, query: Query | None = None, body: Any = None) -> tuple[Stream, bytes]:
        """POST requesting a raw stream; returns the stream, and the bytes of it that were read with the response
        head."""
        headers = {"Connection": "Upgrade", "Upgrade": "tcp"}
        response = self.call("POST", path, query, body, headers=headers)
        self._idle = None
        return response.hijack()


def min_version(one: str, other: str) -> str:
    """The lower of two API versions such as 1.45."""

    def numbers(text: str) -> list[int]:
        return [int(part) for part in text.split(".") if part.isdigit()]

    return one if numbers(one) < numbers(other) else other


def daemon_error(response: Response) -> errors.HavreError:
    """The error of a response with status 400 or more."""
    data = response.read()
    text = data.decode("utf-8", "replace").strip()
    message = text
    if response.headers.get("content-type", "").startswith("application/json"):
        try:
            value = decode(data)
            message = value.get("message", text).strip() if isinstance(value, dict) else text
        except ValueError:
            message = text
    kind = _BY_STATUS.get(response.status, errors.Failed)
    text = f"Error response from daemon: {message or f'status {response.status}'}"
    return kind(text, response.headers.get("havre-hint"))


def cannot_connect(endpoint: Endpoint, error: OSError) -> CannotConnect:
    """The error for a daemon that cannot be reached."""
    from havre.client.unreachable import explain

    return CannotConnect(*explain(endpoint, error))

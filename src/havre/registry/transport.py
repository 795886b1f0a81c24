"""HTTP requests to registries: schemes, authorization, redirects, retries and errors.

    request --> [cached header] --> send --+-- 2xx ------------------------> response
       ^                                   +-- 401, not yet answered: authorize, once more
       |                                   +-- 3xx: follow; another origin gets no Authorization
       +---- wait, limited attempts -------+-- 429, 5xx, a broken connection (idempotent requests)
                                           +-- else: an error with the registry's message

Redirects are followed here and not by aiohttp, because an `Authorization` header must not reach another origin.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import TypeAlias

import aiohttp
import msgspec
from yarl import URL

from havre.aio import in_thread
from havre.errors import Failed, Forbidden, HavreError, InvalidInput, NotFound, Unauthorized, Unavailable
from havre.golang import gojson
from havre.registry.auth import (
    Auth,
    Challenge,
    DelegatedAuth,
    Token,
    TokenCache,
    may_send_credentials,
    parse_challenges,
)
from havre.registry.endpoints import Endpoint, RegistryConfig, parse_url, tls_context
from havre.registry.proxies import proxy_for

log = logging.getLogger(__name__)

MAX_ANSWER = 1 << 20
DOCUMENT_S = 120.0
"""Timeout of a document (a manifest, a token, a list)."""
_REFUSAL_S = 10.0  # timeout of an error response's body
_MAX_REFUSAL = 64 << 10
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=15, sock_read=60)
_REDIRECTS = (301, 302, 303, 307, 308)
_REPEATABLE = ("GET", "HEAD", "PUT", "DELETE")
_TRANSIENT = (429, 500, 502, 503, 504)
_DETAILED = {401: "unauthorized", 429: "toomanyrequests"}
"""What Docker calls a refusal that has `details` and no code, by status."""


Body: TypeAlias = bytes | list[bytes]
"""A request body: bytes, or pieces sent one after the other."""


@dataclass(frozen=True, slots=True)
class Target:
    """The target of a request: an endpoint, the scope of the token it needs ("" for none), and the user's credentials.

    `offline` also requests an identity token, which replaces the password.
    """

    endpoint: Endpoint
    scope: str
    auth: Auth | None
    offline: bool = False
    once: bool = False  # no retries

    @property
    def credentials(self) -> Auth | None:
        """The credentials to send; none to a mirror."""
        return None if self.endpoint.mirror or self.auth is None or self.auth.is_empty else self.auth


class _ErrorDetail(msgspec.Struct):
    code: str = ""
    message: str = ""


class _ErrorBody(msgspec.Struct):
    errors: list[_ErrorDetail] = []
    details: str = ""


class RegistryError(HavreError):
    """A registry's error response with its status; `client` translates it for the user.

    `words` are the registry's own, if it said more than the status. `password_of`: the request whose password is wrong,
    or "": a registry that takes tokens answers 401 to what a token does not permit, one that takes passwords does not.
    """

    def __init__(self, http_status: int, code: str, message: str, words: str = "", password_of: str = "") -> None:
        super().__init__(message)
        self.http_status = http_status
        self.code = code
        self.words = words
        self.password_of = password_of


async def _fetched(auth: DelegatedAuth, challenge: Challenge, target: Target) -> tuple[str, float | None] | None:
    """A token fetched by the client's side; None if it does not."""
    if auth.fetch is None:
        return None
    scope = target.scope or challenge.parameters.get("scope", "")
    try:
        value, life_s = await auth.fetch(
            challenge.parameters.get("realm", ""), challenge.parameters.get("service", ""), scope
        )
    except Failed as error:
        log.info("the client gave no token for %s: %s", target.endpoint.host, error)
        return None
    return (_sendable(value, "the token of the client"), life_s) if value else None


class Transport:
    """Sends requests to endpoints; one per daemon."""

    def __init__(self, config: RegistryConfig) -> None:
        self._config = config
        self._session: aiohttp.ClientSession | None = None
        self._contexts: dict[tuple[str, bool], ssl.SSLContext] = {}
        self._bases: dict[Endpoint, URL] = {}
        self._tokens = TokenCache()
        self._identities: dict[tuple[URL, Auth | None], str] = {}

    async def close(self) -> None:
        """Close all connections; idempotent."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def base(self, endpoint: Endpoint) -> URL:
        """The base URL of the endpoint's `/v2/`; probed once."""
        if len(endpoint.bases) == 1:
            return endpoint.bases[0]
        if (known := self._bases.get(endpoint)) is not None:
            return known
        failure: HavreError | None = None
        for base in endpoint.bases:
            try:
                response = await self._send("GET", base / "v2/", endpoint, {}, None)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                failure = _unreachable(base / "v2/", error)
                continue
            response.release()
            self._bases[endpoint] = base
            return base
        raise failure or Failed(f"no address for registry {endpoint.host}")

    @asynccontextmanager
    async def open(
        self,
        method: str,
        target: Target,
        path: str | URL,
        *,
        headers: Mapping[str, str] | None = None,
        data: Body | None = None,
        ok: tuple[int, ...] = (200,),
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The response to a request for `path` (below `/v2/`, or a URL from the registry), with a status in `ok`.

        Raises `RegistryError` for error responses, `Unauthorized`, or `Failed` when it cannot be reached.
        """
        base = await self.base(target.endpoint)
        url = path if isinstance(path, URL) else URL(f"{base}/v2/{path}", encoded=True)
        response = await self._request(method, base, url, target, dict(headers or {}), data)
        try:
            if response.status not in ok:
                raise await _refusal(method, url, response)
            yield response
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _unreachable(url, error) from error
        finally:
            response.release()

    async def login(self, target: Target) -> str:
        """Authenticate anew, ignoring cached tokens; returns the identity token, or "".

        Raises `RegistryError` or `Unauthorized` when the credentials are rejected.
        """
        base = await self.base(target.endpoint)
        self._tokens.drop(base.origin(), target.scope, target.credentials)
        offline = replace(target, offline=True)
        async with self.open("GET", offline, "") as response:
            response.release()
        return self._identities.pop((base.origin(), target.credentials), "")

    async def _request(
        self, method: str, base: URL, url: URL, target: Target, headers: dict[str, str], data: Body | None
    ) -> aiohttp.ClientResponse:
        """Send until there is a final response; see the module's docstring."""
        challenged = False
        attempts = 1 if target.once else self._config.limits.attempts
        for attempt in range(1, attempts + 1):
            try:
                response = await self._follow(method, base, url, target, headers, data)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                self._bases.pop(target.endpoint, None)
                if attempt == attempts or method not in _REPEATABLE or not _may_pass(error):
                    raise _unreachable(url, error) from error
                log.info("retrying %s %s: %s", method, url, error)
                await asyncio.sleep(backoff_s(attempt))
                continue
            if response.status == 401 and not challenged:
                challenged = True
                await self._authorize(base, url, target, response)
                response = await self._follow(method, base, url, target, headers, data)
            if response.status not in _TRANSIENT or attempt == attempts or method not in _REPEATABLE:
                return response
            wait_s = _retry_after_s(response, attempt, self._config.limits.wait_s)
            response.release()
            await asyncio.sleep(wait_s)
        raise AssertionError("unreachable")

    async def _follow(
        self, method: str, base: URL, url: URL, target: Target, headers: dict[str, str], data: Body | None
    ) -> aiohttp.ClientResponse:
        """Send, following redirects of downloads; only the registry's own origin gets the Authorization header."""
        for _ in range(self._config.limits.redirects + 1):
            response = await self._send(
                method, url, target.endpoint, self._with_token(base, url, target, headers), data
            )
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or method not in ("GET", "HEAD") or location is None:
                return response
            response.release()
            onward = url.join(parse_url(location, encoded=True))
            if onward.scheme not in ("https", url.scheme) or not onward.host:
                raise Failed(f"registry redirects {url} to {onward}", "a redirect from https to http is refused")
            url = onward
        raise Failed(f"registry redirects {url} more than {self._config.limits.redirects} times")

    def _with_token(self, base: URL, url: URL, target: Target, headers: dict[str, str]) -> dict[str, str]:
        if url.origin() != base.origin():
            return headers
        token = self._tokens.get(base.origin(), target.scope, target.credentials)
        return headers if token is None else {**headers, "Authorization": token}

    async def _send(
        self, method: str, url: URL, endpoint: Endpoint, headers: dict[str, str], data: Body | None
    ) -> aiohttp.ClientResponse:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, limit_per_host=16),
                timeout=_TIMEOUT,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": "havre"},
                read_bufsize=1 << 20,
            )
        insecure = endpoint.insecure and url.authority == endpoint.host
        context = await self._context(url.authority, insecure) if url.scheme == "https" else True
        if isinstance(data, list):
            headers = {**headers, "Content-Length": str(sum(map(len, data)))}
        limits = self._config.limits
        body = _sent(data) if isinstance(data, list) else data
        async with asyncio.timeout(limits.answer_s if method in ("GET", "HEAD") else limits.upload_s):
            return await self._session.request(
                method, url, headers=headers, data=body, allow_redirects=False, ssl=context, proxy=proxy_for(url)
            )

    async def _context(self, host: str, insecure: bool) -> ssl.SSLContext:
        context = self._contexts.get((host, insecure))
        if context is None:
            context = await in_thread(tls_context, host, self._config.certs_dir, insecure=insecure)
            self._contexts[(host, insecure)] = context
        return context

    async def _authorize(self, base: URL, url: URL, target: Target, response: aiohttp.ClientResponse) -> None:
        """Handle a 401: puts a header into the cache."""
        header = ", ".join(response.headers.getall("WWW-Authenticate", []))
        response.release()
        origin, auth = base.origin(), target.credentials
        self._tokens.drop(origin, target.scope, auth)
        if url.origin() != origin:
            return
        challenges = {challenge.scheme: challenge for challenge in parse_challenges(header)}
        if (bearer := challenges.get("bearer")) is not None:
            value, life_s = await self._token(origin, bearer, target)
            self._tokens.put(origin, target.scope, auth, f"Bearer {value}", life_s)
        elif "basic" in challenges:
            basic = auth.basic() if auth is not None else None
            if basic is None:
                # A 401 would make docker's command line ask for a password, even where nobody can type one.
                raise Failed(f'Get "{url}": no basic auth credentials', "log in to the registry first")
            self._tokens.put(origin, target.scope, auth, basic, 3600.0)
        else:
            raise Unauthorized(f"registry {target.endpoint.host} requires an unsupported kind of authentication")

    async def _token(self, origin: URL, challenge: Challenge, target: Target) -> tuple[str, float | None]:
        """Request a token from the realm, with the user's credentials only where that is permitted."""
        auth = target.credentials
        if auth is not None and auth.registry_token:
            return _sendable(auth.registry_token, "the registry token given"), None
        realm = parse_url(challenge.parameters.get("realm", ""))
        if realm.scheme not in ("http", "https") or not realm.host:
            raise InvalidInput(f"registry {target.endpoint.host} names no token server")
        trusted = may_send_credentials(origin, realm)
        if not trusted:
            auth = None
        if isinstance(auth, DelegatedAuth) and (given := await _fetched(auth, challenge, target)) is not None:
            return given
        response = await self._answer_of_realm(realm, challenge, target, auth)
        try:
            if response.status != 200:
                raise await _token_refused(realm, response, auth, hidden=not trusted and target.credentials is not None)
            token = gojson.decode(await read_document(response, MAX_ANSWER), Token, "invalid token")
        except InvalidInput as error:
            raise Failed(f"token server {realm.host} did not answer with a token") from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _unreachable(realm, error) from error
        finally:
            response.release()
        if not (token.token or token.access_token):
            raise Unauthorized("authorization server did not include a token in the response", f"it is {realm.host}")
        value = _sendable(token.token or token.access_token, f"the token of server {realm.host}")
        if target.offline and auth is not None and token.refresh_token:
            self._identities[origin, auth] = token.refresh_token
        return value, token.expires_in

    async def _answer_of_realm(
        self, realm: URL, challenge: Challenge, target: Target, auth: Auth | None
    ) -> aiohttp.ClientResponse:
        """What the token server says in the end; one that is busy is asked again."""
        attempts = 1 if target.once else self._config.limits.attempts
        for attempt in range(1, attempts + 1):
            response = await self._ask_realm(realm, challenge, target, auth)
            if response.status not in _TRANSIENT or attempt == attempts:
                return response
            wait_s = _retry_after_s(response, attempt, self._config.limits.wait_s)
            response.release()
            await asyncio.sleep(wait_s)
        raise AssertionError("unreachable")

    async def _ask_realm(
        self, realm: URL, challenge: Challenge, target: Target, auth: Auth | None
    ) -> aiohttp.ClientResponse:
        service = challenge.parameters.get("service", "")
        scope = target.scope or challenge.parameters.get("scope", "")
        try:
            if auth is not None and auth.identity_token:
                form = {"grant_type": "refresh_token", "refresh_token": auth.identity_token, "service": service}
                form |= {"scope": scope, "client_id": "havre"}
                body = URL.build(query=form).raw_query_string.encode()
                kind = {"Content-Type": "application/x-www-form-urlencoded"}
                return await self._send("POST", realm, target.endpoint, kind, body)
            query = {"service": service, **({"scope": scope} if scope else {})}
            basic = auth.basic() if auth is not None else None
            if auth is not None and basic is not None:
                query["account"] = auth.username
                if target.offline:
                    query |= {"offline_token": "true", "client_id": "havre"}
            headers = {"Authorization": basic} if basic is not None else {}
            return await self._send("GET", realm.update_query(query), target.endpoint, headers, None)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unreachable(realm, error) from error


async def _sent(pieces: Sequence[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def _sendable(token: str, what: str) -> str:
    """`token`, if it is a valid header value; otherwise Unauthorized."""
    if not token or not token.isascii() or not token.isprintable():
        raise Unauthorized(f"{what} is empty or invalid")
    return token


async def _token_refused(
    realm: URL, response: aiohttp.ClientResponse, auth: Auth | None, *, hidden: bool
) -> HavreError:
    """A token server's refusal, in its own words where it has some."""
    words = (await _refusal("GET", realm, response)).words
    if response.status in (401, 403):
        hint = (
            f"{realm.host} is not trusted with the registry's credentials, so the request was anonymous"
            if hidden
            else None
        )
        reason = "authentication required" if auth is None else "incorrect username or password"
        return Unauthorized(words or f"unauthorized: {reason}", hint)
    return Failed(words or f"token server {realm.host} answered with status {response.status}")


def _may_pass(error: Exception) -> bool:
    """Report whether a retry may help: not for an unknown host, a refused connection, or an invalid certificate."""
    return not isinstance(error, aiohttp.ClientConnectorError | aiohttp.InvalidURL | ssl.SSLError)


def backoff_s(attempt: int) -> float:
    """Seconds to wait before a retry: exponential, with jitter."""
    return 0.25 * float(1 << (attempt - 1)) * random.uniform(0.75, 1.25)


def _retry_after_s(response: aiohttp.ClientResponse, attempt: int, most_s: float) -> float:
    wish = response.headers.get("Retry-After", "")
    return min(float(wish), most_s) if wish.isdecimal() and len(wish) < 6 else backoff_s(attempt)


def _unreachable(url: URL, error: Exception) -> HavreError:
    """A transport error in the words of Go's HTTP client, which Docker's users know."""
    reason = str(error) or type(error).__name__
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        reason = f"tls: failed to verify certificate: {error.certificate_error}"
    elif isinstance(error, aiohttp.ClientConnectorDNSError):
        reason = f"dial tcp: lookup {error.host}: no such host"
    elif isinstance(error, aiohttp.ClientConnectorError) and not isinstance(error, aiohttp.ClientSSLError):
        reason = f"dial tcp {error.host}:{error.port}: connect: {_os_reason(error.os_error)}"
    elif isinstance(error, TimeoutError):
        reason = "net/http: request canceled while waiting for the registry (Client.Timeout exceeded)"
    return Failed(f'Get "{url}": {reason}')


def _os_reason(error: OSError) -> str:
    return os.strerror(error.errno).lower() if error.errno else str(error)


async def read_document(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The body of a response, limited to `limit` bytes and `DOCUMENT_S`. `InvalidInput`, `TimeoutError`."""
    body = bytearray()
    async with asyncio.timeout(DOCUMENT_S):
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > limit:
                raise InvalidInput(f"registry sent a document of more than {limit} bytes")
    return bytes(body)


async def _refusal(method: str, url: URL, response: aiohttp.ClientResponse) -> RegistryError:
    """The error of an error response, with the registry's message."""
    said = _ErrorBody()
    try:
        async with asyncio.timeout(_REFUSAL_S):
            body = await read_document(response, _MAX_REFUSAL) if method != "HEAD" else b"{}"
        said = gojson.decode(body, _ErrorBody, "invalid error document")
    except (InvalidInput, TimeoutError, aiohttp.ClientError):
        log.debug("%s %s: status %d with a body that is not an error document", method, url, response.status)
    code, message = (said.errors[0].code, said.errors[0].message) if said.errors else ("", "")
    words = f"{code.lower().replace('_', ' ')}: {message or 'unknown error'}" if code else ""
    if not words and said.details:  # Docker Hub's token server
        words = f"{_DETAILED.get(response.status, 'unknown')}: {said.details}"
    text = words or f"received unexpected HTTP status: {response.status} {response.reason}"
    asked = [each.split(None, 1)[0].lower() for each in response.headers.getall("WWW-Authenticate", []) if each.strip()]
    wrong = response.status == 401 and asked == ["basic"]
    return RegistryError(response.status, code, text, words, f'{method.capitalize()} "{url}"' if wrong else "")


@contextmanager
def in_words(what: str = "") -> Iterator[None]:
    """Translate a `RegistryError` into a failure of `what`."""
    try:
        yield
    except RegistryError as error:
        raise as_asked(error, what) from error


def as_asked(error: RegistryError, what: str) -> HavreError:
    """`error` as a failure of `what`, with the status that Docker's API returns."""
    kinds: dict[int, type[HavreError]] = {
        400: InvalidInput, 401: Unauthorized, 403: Forbidden, 404: NotFound, 429: Unavailable, 503: Unavailable,
    }  # fmt: skip
    return kinds.get(error.http_status, Failed)(f"{what}: {error.message}" if what else error.message)

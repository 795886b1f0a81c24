"""Searches a registry: by Docker Hub's v1 index protocol where supported, else by the catalog.

    term         index.docker.io/v1/search?q=term&n=limit      {"results": [{"name": ..., "star_count": ...}]}
    host/term    the same at host; else the names in /v2/_catalog that contain the term

Source: Docker's "v1 registry and index API" (only search is still in use); OCI distribution specification 1.1.
"""

from __future__ import annotations

import msgspec
from yarl import URL

from havre.errors import Failed, InvalidInput
from havre.golang import gojson
from havre.oci.names import DEFAULT_REGISTRY
from havre.registry.auth import Auth
from havre.registry.endpoints import RegistryConfig, endpoint_of
from havre.registry.transport import MAX_ANSWER, RegistryError, Target, Transport, as_asked, read_document

MAX_RESULTS = 100
_INDEX = "index.docker.io"


class FoundRepository(msgspec.Struct, frozen=True):
    """A repository found."""

    name: str
    description: str = ""
    star_count: int = 0
    is_official: bool = False
    is_automated: bool = False


class _Results(msgspec.Struct):
    results: list[FoundRepository] = []


def split_term(term: str) -> tuple[str, str]:
    """The registry to search and the term, as dockerd parses them. `InvalidInput` for a URL."""
    if "://" in term:
        raise InvalidInput(f"invalid repository name: repository name ({term}) should not have a scheme")
    host, slash, rest = term.partition("/")
    if slash and ("." in host or ":" in host or host == "localhost") and host not in (DEFAULT_REGISTRY, _INDEX):
        return host, rest
    return DEFAULT_REGISTRY, (rest if slash and host in (DEFAULT_REGISTRY, _INDEX) else term).removeprefix("library/")


async def search_index(
    transport: Transport, config: RegistryConfig, registry: str, term: str, limit: int, auth: Auth | None
) -> list[FoundRepository] | None:
    """Search the registry's index, at most `limit` results; None where it has no index. Raises `Failed`."""
    endpoint = endpoint_of(_INDEX if registry == DEFAULT_REGISTRY else registry, config)
    target = Target(endpoint, "", auth)
    query = URL.build(query={"q": term, "n": str(limit)}).raw_query_string
    base = await transport.base(endpoint)
    try:
        async with transport.open("GET", target, URL(f"{base}/v1/search?{query}", encoded=True)) as response:
            body = await read_document(response, MAX_ANSWER)
    except RegistryError as error:
        if error.http_status in (404, 405):
            return None
        raise as_asked(error, f"searching {registry}") from error
    try:
        return gojson.decode(body, _Results, "invalid list of results").results[:limit]
    except InvalidInput as error:
        raise Failed(f"searching {registry}: invalid list of results: {error}") from error

"""Sends a build to the daemon, for `havre build` and `havre compose`, and returns the build's messages.

    havre's daemon    the list of files, then those it lacks, named contexts and secrets with them (`buildlist`)
    dockerd           the whole context as a tar to the classic endpoint, which supports neither

A context is a directory or a Dockerfile's text, a ready-made tar, or None for a URL in the query's `remote`, which the
daemon fetches itself.
"""

from __future__ import annotations

from havre.client.auth import base64, find_auth
from havre.client.buildcontext import DirectoryContext, TextContext
from havre.errors import Failed, InvalidInput
from havre.golang.jsontext import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from havre.client.api import Client, Query
    from havre.client.buildcache import CacheDirectory
    from havre.client.config import Config
    from havre.client.http import Response

    Source = DirectoryContext | TextContext | Iterator[bytes] | None

MAX_SECRET = 500 << 10
_REMOTE = ("http://", "https://", "git://", "git@", "ssh://", "github.com/")
_NAMED = ("docker-image://", "target:", *_REMOTE)


def is_remote(context: str) -> bool:
    """Report whether a context is a URL."""
    return context.startswith(_REMOTE)


def takes_lists(client: Client) -> bool:
    """Report whether the daemon is havre's."""
    return "havre" in client.server()


def send_tar(client: Client, path: str, query: Query, source: Source, credentials: str) -> Response:
    """Send a context as a tar and return the response. `credentials` as returned by `registry_config`."""
    from havre.client.buildtar import tar_of

    body = tar_of(source) if isinstance(source, DirectoryContext | TextContext) else source
    headers = {"Content-Type": "application/x-tar", "X-Registry-Config": credentials}
    return client.call("POST", path, query, raw_body=body, headers=headers)


def send_list(
    client: Client,
    query: Query,
    source: Source,
    named: dict[str, str],
    secrets: dict[str, bytes],
    credentials: str,
    caches: dict[str, CacheDirectory] | None = None,
) -> Iterator[dict[str, Any]]:
    """Send a build by `buildlist` and yield its messages; a tar or a URL is sent as to any daemon.

    `named` are additional contexts: directories, images (`docker-image://`), stages or URLs; `caches` are directories
    of
    caches. Raises InvalidInput where directories or secrets would have to be sent with a tar.
    """
    images = {name: value for name, value in named.items() if value.startswith(_NAMED)}
    if images:
        query["contexts"] = encode(images)
    directories = {name: DirectoryContext(path, None) for name, path in named.items() if name not in images}
    listed: dict[str, DirectoryContext | TextContext | CacheDirectory] = {**directories, **(caches or {})}
    if isinstance(source, DirectoryContext | TextContext):
        listed = {"context": source, **listed}
    elif not (secrets or listed):
        return iter(client.messages(send_tar(client, "/build", query, source, credentials)))
    elif source is not None:
        raise InvalidInput("secrets and further directories cannot go with a context that is a tar")
    from havre.client.buildlist import CONTENT_TYPE, ListedContexts

    dockerfile = source.text if isinstance(source, DirectoryContext | TextContext) else None
    contexts = ListedContexts(listed, secrets, dockerfile)
    headers = {"Content-Type": CONTENT_TYPE, "X-Registry-Config": credentials}
    response, go_on = client.converse("/build", query, contexts.head(), headers)
    messages = client.messages(response)
    for message in messages:
        if "Wanted" in (message.get("aux") or {}):
            go_on(contexts.contents(message["aux"]["Wanted"]))
            return messages
        return iter([message])  # an error message
    return iter(())


def read_secret(id: str, path: str) -> bytes:
    """Read a secret. Raises Failed for an unreadable file, InvalidInput for one larger than MAX_SECRET bytes."""
    try:
        with open(path, "rb") as file:
            value = file.read(MAX_SECRET + 1)
    except OSError as error:
        raise Failed(f"failed to read the secret {id}: {path}: {error.strerror}") from error
    if len(value) > MAX_SECRET:
        raise InvalidInput(f"the secret {id} is larger than {MAX_SECRET} bytes")
    return value


def registry_config(config: Config) -> str:
    """The value of X-Registry-Config: the credentials of all registries. Raises Failed as `find_auth` does."""
    known = {server: find_auth(config, server) for server in config.values.get("auths") or {}}
    return base64(encode(known).encode(), url_safe=True)

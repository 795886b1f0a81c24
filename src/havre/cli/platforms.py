"""Flags that only newer daemons know; `--platform` of the verbs that select among an image's platforms.

A platform is `os/architecture[/variant]`; several are separated by commas.
"""

from __future__ import annotations

from havre.cli.parser import StatusError
from havre.golang.jsontext import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from havre.client.api import Client


def platform_parameters(client: Client, texts: Sequence[str], version: str) -> list[str]:
    """The platforms as the API takes them, in JSON. Raises StatusError.

    `version` is the API version in which dockerd added the parameter; older versions ignore it.
    """
    if not texts:
        return []
    require_newer(client, "--platform", version)
    return [_render(each) for text in texts for each in text.split(",")]


def require_newer(client: Client, flag: str, version: str) -> None:
    """Refuse a flag on daemons other than havre's, to which this client speaks an older version. Raises StatusError."""
    if "havre" not in client.server():
        raise StatusError(1, f'"{flag}" requires API version {version}, but this client speaks {client.version}')


def _render(text: str) -> str:
    parts = text.split("/")
    if not all(parts) or len(parts) > 3:
        raise StatusError(1, f'invalid platform: "{text}": expected os/architecture[/variant], such as linux/arm64')
    if len(parts) == 1:
        parts = ["linux", *parts]
    return encode(dict(zip(("os", "architecture", "variant"), parts, strict=False)))

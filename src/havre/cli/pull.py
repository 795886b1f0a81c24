"""`havre pull` and `havre push`."""

from __future__ import annotations

import sys

from havre.cli.parser import StatusError
from havre.cli.platforms import platform_parameters
from havre.cli.progress import drain, show
from havre.client.auth import auth_header, find_auth
from havre.client.config import environment
from havre.errors import InvalidInput
from havre.oci.names import AUTH_KEY, DEFAULT_REGISTRY, familiar, has_tag, split_registry, split_tag, split_version

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from havre.cli.session import Session
    from havre.client.api import Query
    from havre.golang.flags import Options


_ONE_PLATFORM = """--platform pushes the image for this platform alone, not the index with the others.
Leave it out to push all of them.
"""


def registry_headers(session: Session, image: str) -> dict[str, str]:
    """The header with the credentials of `image`'s registry."""
    registry, _ = split_registry(image)
    server = AUTH_KEY if registry == DEFAULT_REGISTRY else registry
    return {"X-Registry-Auth": auth_header(find_auth(session.config, server))}


def check_trust(options: Options, exit_code: int = 1) -> None:
    """Reject content trust (Notary): a requested verification must not be skipped silently."""
    skipped = options.disable_content_trust
    if skipped is None and (asked := environment("DOCKER_CONTENT_TRUST")):
        skipped = asked in ("0", "f", "F", "FALSE", "false", "False")  # docker takes any other value as true
    if skipped is False:
        raise StatusError(
            exit_code,
            "content trust is not supported, as Notary has been shut down: require signatures by "
            "`havre pull --verify KEY` or the daemon's policy, or give --disable-content-trust",
        )


def check_name(name: str) -> None:
    """Reject an invalid image name. Raises InvalidInput."""
    registry, repository = split_registry(name)
    path = split_tag(repository.partition("@")[0])[0]
    if path != path.lower():
        full = f"library/{path}" if registry == DEFAULT_REGISTRY and "/" not in path else path
        raise InvalidInput(f"invalid reference format: repository name ({full}) must be lowercase")
    if not path or not all(_is_part(part) for part in path.split("/")):
        raise InvalidInput("invalid reference format")


def _is_part(text: str) -> bool:
    return text.strip("._-") == text and text.replace(".", "").replace("_", "").replace("-", "").isalnum()


def pull_image(
    session: Session,
    image: str,
    *,
    platform: str = "",
    quiet: bool = False,
    output: int = 1,
    all_tags: bool = False,
    verify: str = "",
) -> None:
    """Pull an image and show the progress on descriptor `output`; `verify` is a public key. Raises HavreError."""
    name, version = split_version(image)
    query: Query = {"fromImage": name}
    if not all_tags:
        query["tag"] = version or "latest"
    if platform:
        query["platform"] = platform
    path = "/images/create"
    if verify:
        path, query["verify"] = "/images/pull-verified", verify  # other engines do not have this path
    response = session.client.call("POST", path, query, headers=registry_headers(session, image))
    messages = session.client.messages(response)
    if quiet:
        drain(messages)
    else:
        show(messages, output)


def _read_key(path: str) -> str:
    """The text of a public key. Raises StatusError."""
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise StatusError(1, f"cannot read the key {path}: {error}") from error


def pull(session: Session, options: Options, arguments: list[str]) -> int:
    """Pull an image, or all tags of a repository."""
    name = arguments[0]
    check_trust(options)
    check_name(name)
    if options.all_tags and (has_tag(name) or "@" in name):
        raise StatusError(1, "tag can't be used with --all-tags/-a")
    if not options.all_tags and not has_tag(name) and "@" not in name and not options.quiet:
        print("Using default tag: latest", flush=True)
    verify = _read_key(options.verify) if options.verify else ""
    for platform in options.platform.split(","):
        pull_image(session, name, platform=platform, quiet=options.quiet, all_tags=options.all_tags, verify=verify)
    registry, rest = split_registry(name)
    full = familiar(f"{registry}/{rest}")
    if registry == DEFAULT_REGISTRY:
        full = f"{registry}/" + (full if "/" in full else f"library/{full}")
    print(full.removesuffix(":latest") if options.all_tags else full)
    return 0


def push(session: Session, options: Options, arguments: list[str]) -> int:
    """Push an image, or all tags of a repository."""
    name = arguments[0]
    check_trust(options)
    check_name(name)
    if options.all_tags and has_tag(name):
        raise StatusError(1, "tag can't be used with --all-tags/-a")
    repository, tag = split_tag(name)
    if not tag and not options.all_tags:
        tag = "latest"
        if not options.quiet:
            print("Using default tag: latest", flush=True)
    if options.platform and not options.quiet:
        print(_ONE_PLATFORM, flush=True)
    messages = _pushing(session, name, repository, tag, options.platform)
    if options.quiet:
        drain(messages)
        registry, rest = split_registry(name)
        prefix = f"{registry}/" + ("" if "/" in rest or registry != DEFAULT_REGISTRY else "library/")
        print(prefix + rest + ("" if has_tag(name) or options.all_tags else ":latest"))
        return 0
    notes: list[str] = []
    show(messages, 1, lambda aux: notes.extend(_notes(aux)))
    for note in notes:
        print(note)
    sys.stdout.flush()
    return 0


def push_image(session: Session, name: str, *, quiet: bool) -> str:
    """Push one name and show progress on standard error; returns its digest. Raises HavreError."""
    told: dict[str, Any] = {}
    repository, tag = split_tag(name)
    messages = _pushing(session, name, repository, tag or "latest")
    if quiet:
        drain(messages, told.update)
    else:
        show(messages, 2, told.update)
    return str(told.get("Digest", ""))


def _pushing(session: Session, name: str, repository: str, tag: str, platform: str = "") -> Iterator[Any]:
    query: Query = {"tag": tag} if tag else {}
    if platform:
        query["platform"] = platform_parameters(session.client, [platform], "1.46")
    path = f"/images/{repository}/push"
    return session.client.messages(session.client.call("POST", path, query, headers=registry_headers(session, name)))


def _notes(aux: dict[str, Any]) -> list[str]:
    """Notes about the result of a push."""
    if not aux.get("manifestPushedInsteadOfIndex"):
        return []
    moved = f"{aux['originalIndex']['digest']} -> {aux['selectedManifest']['digest']}"
    return [f"\nNot all platforms of the image are present: only one was pushed, without the index\n{moved}"]

"""`havre manifest`: manifest lists for several platforms, created locally and pushed under one name.

Unfinished lists are files of the user. Registries are accessed directly, by the daemon's registry client, which is
imported only when one of these commands runs.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from havre.cli.manifestlists import ManifestLists
    from havre.cli.session import Session
    from havre.golang.flags import Options


def _lists(session: Session, *, insecure: bool = False) -> ManifestLists:
    from havre.cli.main import use_site

    use_site()
    from havre.cli.manifestlists import ManifestLists

    return ManifestLists(session.config, insecure=insecure)


def create(session: Session, options: Options, arguments: list[str]) -> int:
    """Create a manifest list, or add to it."""
    name, *members = arguments
    print("Created manifest list", _lists(session, insecure=options.insecure).create(name, members, options.amend))
    return 0


def annotate(session: Session, options: Options, arguments: list[str]) -> int:
    """Change the platform of a member."""
    given = {
        "architecture": options.arch,
        "os": options.os,
        "os_version": options.os_version,
        "os_features": tuple(options.os_features),
        "variant": options.variant,
    }
    target, member = arguments
    _lists(session).annotate(target, member, {name: value for name, value in given.items() if value})
    return 0


def inspect(session: Session, options: Options, arguments: list[str]) -> int:
    """Show a manifest or a list, local or remote."""
    *in_list, name = arguments
    lists = _lists(session, insecure=options.insecure)
    sys.stdout.write(lists.inspect(name, in_list[0] if in_list else "", verbose=options.verbose))
    return 0


def push(session: Session, options: Options, arguments: list[str]) -> int:
    """Push a list, and remove it locally if requested."""
    lists = _lists(session, insecure=options.insecure)
    for line in lists.push(arguments[0]):
        print(line)
    if options.purge:
        lists.remove(arguments[0])
    return 0


def rm(session: Session, options: Options, arguments: list[str]) -> int:
    """Remove local lists."""
    lists = _lists(session)
    for name in arguments:
        lists.remove(name)
    return 0

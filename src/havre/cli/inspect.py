"""`inspect` of every type: the daemon's JSON indented, or through a Go template.

`havre inspect NAME` looks for a container, then an image, a network, a volume ... and shows the first that exists.
"""

from __future__ import annotations

import sys

from havre.cli.parser import StatusError
from havre.errors import HavreError, InvalidInput, NotFound
from havre.golang.jsontext import encode
from havre.golang.templates.gotypes import typed
from havre.golang.templates.lex import TemplateError
from havre.visible import Drawn, for_terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from havre.cli.session import Session
    from havre.golang.flags import Options

    Get = Callable[[str], Any]

# In order of look-up.
_PATHS = {
    "container": "/containers/{}/json",
    "image": "/images/{}/json",
    "network": "/networks/{}",
    "volume": "/volumes/{}",
    "service": "/services/{}",
    "task": "/tasks/{}",
    "node": "/nodes/{}",
    "plugin": "/plugins/{}/json",
    "secret": "/secrets/{}",
    "config": "/configs/{}",
}
_SWARM = ("service", "task", "node", "secret", "config")


def show(names: list[str], form: str, get: Get) -> int:
    """Print every named object in the form requested; failures are printed last, with exit code 1."""
    objects, failures = [], []
    for name in names:
        try:
            objects.append(get(name))
        except HavreError as error:
            failures.append(str(error))
    if form in ("", "json"):
        _print_json(objects, compact=form == "json")
    else:
        _print_template(objects, form)
    sys.stdout.flush()
    if failures:
        print("\n".join(failures), file=sys.stderr)
    return 1 if failures else 0


def _print_json(objects: list[Any], *, compact: bool) -> None:
    if compact:
        sys.stdout.write(encode(objects, escape_html=True) + "\n")
    else:
        sys.stdout.write(encode(objects, indent="    ", escape_html=True) + "\n")


def _print_template(objects: list[Any], form: str) -> None:
    from havre.golang.templates.template import compile_template

    try:
        template = compile_template(form.replace("\\t", "\t").replace("\\n", "\n"))
    except TemplateError as error:
        raise StatusError(64, f"template parsing error: {error}") from error
    try:
        for value in objects:
            sys.stdout.write(Drawn(template.execute(typed(value), shown=for_terminal()) + "\n"))
        if not objects:
            sys.stdout.write("\n")
    except TemplateError as error:
        sys.stdout.write("\n")
        raise InvalidInput(f"template parsing error: {error}") from error


def containers(session: Session, options: Options, arguments: list[str]) -> int:
    """Inspect containers."""
    query: dict[str, str | list[str]] = {"size": "1"} if options.size else {}
    return show(arguments, options.format, lambda name: session.client.get(f"/containers/{name}/json", query))


def images(session: Session, options: Options, arguments: list[str]) -> int:
    """Inspect images."""
    query: dict[str, str | list[str]] = {}
    if options.platform:
        from havre.cli.platforms import platform_parameters

        query["platform"] = platform_parameters(session.client, [options.platform], "1.49")
    return show(arguments, options.format, lambda name: session.client.get(f"/images/{name}/json", query))


def networks(session: Session, options: Options, arguments: list[str]) -> int:
    """Inspect networks."""
    query: dict[str, str | list[str]] = {"verbose": "1"} if options.verbose else {}
    return show(arguments, options.format, lambda name: session.client.get(f"/networks/{name}", query))


def volumes(session: Session, options: Options, arguments: list[str]) -> int:
    """Inspect volumes."""
    return show(arguments, options.format, lambda name: _in_order(session.client.get(f"/volumes/{name}")))


def _in_order(volume: Any) -> Any:
    """A volume's members sorted by name, as docker prints them."""
    return dict(sorted(volume.items()))


def anything(session: Session, options: Options, arguments: list[str]) -> int:
    """Inspect objects of any type, or only of --type."""
    kind = options.type
    if kind and kind not in _PATHS:
        raise StatusError(1, f'"{kind}" is not a valid value for --type')
    if "type" in options.given and not kind:
        raise StatusError(1, 'type is empty: must be one of "config", "container", "image", "network", "node", '
                          '"plugin", "secret", "service", "task", "volume"')  # fmt: skip
    return show(arguments, options.format, lambda name: _find(session, name, kind, options.size))


def _find(session: Session, name: str, only: str, size: bool) -> Any:
    for kind, path in _PATHS.items():
        if only and kind != only:
            continue
        query: dict[str, str | list[str]] = {"size": "1"} if size and kind == "container" else {}
        try:
            return session.client.get(path.format(name), query)
        except NotFound:
            if only:
                raise
        except HavreError:
            # a daemon that is not in a swarm answers 503 to the swarm's types
            if only or kind not in (*_SWARM, "plugin"):
                raise
    raise NotFound(f"Error: No such object: {name}")

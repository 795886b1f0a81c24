"""A container's attributes in its log, selected by options, and its tag, a Go template. Pure.

Source: the documentation of Docker's log drivers; error texts are dockerd's.
Why: docs/decisions/316.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from havre.errors import InvalidInput
from havre.logs.values import START

DEFAULT_TAG = "{{.ID}}"
_LONGEST = 16 << 10  # maximum length of a template and of a pattern, in characters
_PATTERN_BYTES = 1 << 20  # memory limit of a compiled pattern and its matching
_BUDGET = 1 << 20  # limit of characters processed to render a tag; half a second at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A container; `name` without slash, `created` RFC 3339."""

    id: str
    name: str
    image_id: str
    image_name: str
    entrypoint: str = ""
    args: tuple[str, ...] = ()
    created: str = ""
    labels: Mapping[str, str]
    env: Mapping[str, str]

    @property
    def command(self) -> str:
        """Its program and arguments, separated by spaces."""
        return " ".join((self.entrypoint, *self.args))


def render_tag(template: str, subject: Subject, options: Mapping[str, str], log_path: str = "") -> str:
    """Render a tag such as `{{.Name}}/{{.ID}}`. InvalidInput, also for one that exceeds the time or memory limit."""
    if template == DEFAULT_TAG:
        return subject.id[:12]
    _check_length("tag", template)
    # Imported late: only containers with such tags need it.
    from havre.golang.templates.lex import TemplateError
    from havre.golang.templates.template import compile_template

    try:
        return compile_template(template, "log-tag").execute(_info(subject, options, log_path), _BUDGET)
    except TemplateError as error:
        hint = f"known: {', '.join((*_METHODS, *_FIELDS))}" if "can't evaluate field" in str(error) else None
        raise InvalidInput(f"{START}: {error}", hint) from error


def _check_length(name: str, text: str) -> None:
    if len(text) > _LONGEST:
        raise InvalidInput(f"{START}: the {name} has {len(text)} characters", f"at most {_LONGEST}")


_FIELDS: Mapping[str, Callable[[Subject], Any]] = {
    "ContainerID": lambda subject: subject.id,
    "ContainerName": lambda subject: f"/{subject.name}",
    "ContainerEntrypoint": lambda subject: subject.entrypoint,
    "ContainerArgs": lambda subject: list(subject.args),
    "ContainerImageID": lambda subject: subject.image_id,
    "ContainerImageName": lambda subject: subject.image_name,
    "ContainerCreated": lambda subject: subject.created,
    "ContainerEnv": lambda subject: [f"{name}={value}" for name, value in subject.env.items()],
    "ContainerLabels": lambda subject: dict(sorted(subject.labels.items())),
}
_METHODS: Mapping[str, Callable[[Subject], str]] = {
    "ID": lambda subject: subject.id[:12],
    "FullID": lambda subject: subject.id,
    "Name": lambda subject: subject.name,
    "Command": lambda subject: subject.command,
    "ImageID": lambda subject: subject.image_id[:12],
    "ImageFullID": lambda subject: subject.image_id,
    "ImageName": lambda subject: subject.image_name,
    "Hostname": lambda subject: os.uname().nodename,
}


def _info(subject: Subject, options: Mapping[str, str], log_path: str) -> Any:
    from havre.golang.templates.gotypes import Struct, Time

    @cache
    def attributes() -> dict[str, str]:
        return dict(sorted(plan_attrs(options, subject).items()))

    class Info(Struct):
        """The value that templates see: dockerd's `logger.Info`, fields in its order, and methods."""

        type_name = "*logger.Info"

        def get_field(self, name: str) -> tuple[Callable[..., Any], int] | None:
            """The function of a field or method and the number of its arguments."""
            if name == "ExtraAttributes":
                return lambda _: attributes(), 1
            if name in _METHODS:
                return lambda: _METHODS[name](subject), 0
            return (lambda: self[name], 0) if name in self else None

    info = Info(Config=dict(sorted(options.items())))
    info.update({name: function(subject) for name, function in _FIELDS.items()})
    info.update(ContainerCreated=Time(subject.created), LogPath=log_path, DaemonName="docker")
    return info


def plan_attrs(options: Mapping[str, str], subject: Subject) -> dict[str, str]:
    """The labels and variables selected by the options. InvalidInput for an invalid pattern."""
    chosen: dict[str, str] = {}
    for kind, found in (("labels", subject.labels), ("env", subject.env)):
        for name in options.get(kind, "").split(","):
            if name in found:
                chosen[name] = found[name]
        if pattern := options.get(f"{kind}-regex"):
            _check_length(f"{kind}-regex", pattern)
            matches = _matcher(pattern)
            chosen |= {name: value for name, value in found.items() if matches(name)}
    return chosen


# Go's words for RE2's errors.
_FAULTS = {
    "missing )": "missing closing )",
    "missing ]": "missing closing ]",
    "no argument for repetition operator": "missing argument to repetition operator",
    "bad repetition operator": "invalid nested repetition operator",
    "invalid perl operator": "invalid or unsupported Perl syntax",
    "invalid repetition size": "invalid repeat count",
    "invalid named capture group": "invalid named capture",
    "pattern too large - compile failed": "expression too large",
    "trailing \\": "trailing backslash at end of expression",
}


def _matcher(pattern: str) -> Callable[[str], Any]:
    """A matcher in time linear in the name's length: RE2, which has Go's syntax."""
    import re2

    quiet = re2.Options()
    quiet.log_errors = False
    quiet.max_mem = _PATTERN_BYTES
    try:
        return re2.compile(pattern, quiet).search  # type: ignore[no-any-return]
    except re2.error as error:
        fault, _, where = error.args[0].decode("utf-8", "replace").partition(": ")
        words = f"{_FAULTS.get(fault, fault)}: `{where}`"
        raise InvalidInput(f"{START}: error parsing regexp: {words}", "the syntax is RE2's") from error

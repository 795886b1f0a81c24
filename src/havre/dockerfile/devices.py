"""`RUN --device=...`: CDI devices for one step. Pure.

    --device=vendor.com/class=gpu0           a device; without `required` one that the host does not have is left out
    --device=vendor.com/class,required       the first of its kind
    --device=vendor.com/class=*              all of its kind
    --device=name=gpus                       all of a class that the descriptions assign

Source: the Dockerfile reference, "RUN --device"; moby/buildkit frontend/dockerfile/instructions/commands_rundevice.go.
"""

from __future__ import annotations

from dataclasses import dataclass

from havre.dockerfile.syntax import nearest
from havre.errors import InvalidInput
from havre.golang.csvtext import split_csv
from havre.golang.units import parse_bool

_KEYS = ("name", "required")


@dataclass(frozen=True, slots=True)
class RunDevice:
    """A device, kind or class by name; without a device of this name the step fails if it is `required`."""

    name: str
    required: bool = False


def parse_device(text: str) -> RunDevice:
    """The device of a `--device` flag's value. Raises `InvalidInput`."""
    try:
        fields = split_csv(text)
    except ValueError as error:
        raise InvalidInput(f"{error}: {text}") from None
    name, required = "", False
    for field in fields:
        key, equals, value = field.partition("=")
        key = key.lower()
        if key == "required":
            required = _truth(value) if equals else True
        elif key == "name" and equals:
            if name:
                raise InvalidInput(f"device name already set to {name}")
            name = value
        elif not name:
            name = field
        elif equals:
            raise InvalidInput(f"unexpected key '{key}' in '{field}'{nearest(key, _KEYS)}")
        else:
            raise InvalidInput(f"invalid field '{field}' must be a key=value pair")
    if not name:
        raise InvalidInput("a device needs a name", "expected vendor.com/class=name, vendor.com/class or a class")
    return RunDevice(name, required)


def _truth(value: str) -> bool:
    try:
        return parse_bool(value)
    except ValueError:
        raise InvalidInput(f"invalid value for required: {value}") from None

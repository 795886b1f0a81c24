"""Validates names and generates them: an adjective and the surname of a pioneer of computing."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from havre.errors import InvalidInput

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_ALIAS = re.compile(r"(?:/[^/]+/|/)?([a-zA-Z0-9_][a-zA-Z0-9_.-]{0,254})")  # 255: limit of a DNS name (RFC 1035)

_ADJECTIVES = """
agile amber ample apt astute balmy bold brave breezy bright brisk calm candid careful cheerful chirpy civil
clear clever cosy crisp curious daring deft diligent eager earnest easy elated fair fearless fine fluent fond
frank fresh gentle glad golden graceful grand handy hardy hearty honest humble jolly jovial just keen kind
lively loyal lucid lucky mellow merry mild modest neat nimble noble patient placid plucky polite proud prudent
quick quiet rapid ready robust rosy serene sharp silver simple sincere smooth snappy sober solid sound spry
stately steady stout sunny supple sure swift tidy tranquil trim true upbeat valiant vivid warm wise witty zesty
"""

_SURNAMES = """
aiken allen babbage backus bachman baran bartik boole borg brooks cerf church clarke cocke codd conway cook
corbato cray dahl davies deutsch diffie dijkstra easley eckert engelbart estrin feigenbaum flowers floyd
forsythe gosling gray hamilton hamming hartmanis hellman hoare holberton hopper iverson johnson joy kahan kahn
karp kay keller kernighan kilburn knuth lampson lamport leibniz licklider liskov lovelace martin mauchly
mccarthy mccluskey meltzer merkle metcalfe milner minsky moore naur newell newman nygaard pascal perlis perlman
postel rabin reynolds ritchie rivest roberts sammet scott shamir shannon shaw shima simon spence stallman
stearns steele sutherland tarjan thacker thompson torvalds turing ullman valiant vaughan wilkes wilkinson wirth
wozniak yao zuse
"""


ADJECTIVES = tuple(_ADJECTIVES.split())
SURNAMES = tuple(_SURNAMES.split())


def check_name(name: str) -> str:
    """A container's name without its leading slash. Raises `InvalidInput` with Docker's message."""
    bare = name.removeprefix("/")
    if _NAME.fullmatch(bare) is None:
        raise InvalidInput(f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    return bare


def make_name(taken: Callable[[str], bool]) -> str:
    """A random name that is not `taken`; after several collisions, with a number appended."""
    for _ in range(8):
        name = f"{random.choice(ADJECTIVES)}_{random.choice(SURNAMES)}"
        if not taken(name):
            return name
    while taken(numbered := f"{name}{random.randrange(1_000_000)}"):
        pass
    return numbered


def check_alias(alias: str) -> str:
    """The alias of a link, given alone or as `inspect` shows it (`/OWNER/ALIAS`).

    Raises `InvalidInput` for an alias that cannot be looked up (a slash, a space), which dockerd accepts.
    """
    if (match := _ALIAS.fullmatch(alias)) is None:
        shown = alias if len(alias) <= 255 else f"{alias[:40]}..."
        allowed = "a letter, digit or underscore, then up to 254 of [a-zA-Z0-9_.-]"
        raise InvalidInput(f"invalid alias of a link ({shown!r}): only {allowed} are allowed")
    return match[1]

"""Which storage driver is chosen, and which digests are garbage: decisions without a kernel."""

from __future__ import annotations

import itertools

import pytest

from havre.errors import InvalidInput, Unsupported
from havre.oci.digest import Digest
from havre.storage.drivers import Abilities, choose_driver
from havre.storage.gc import plan_garbage

EVERYTHING = Abilities(erofs_file=True, erofs_loop=True, overlay=True, append=True)
NOTHING = Abilities(erofs_file=False, erofs_loop=False, overlay=False, append=False)


@pytest.mark.parametrize(
    ("can", "name", "erofs", "unpacks"),
    [
        (EVERYTHING, "erofs", "file", False),
        (Abilities(erofs_file=False, erofs_loop=True, overlay=True, append=True), "erofs-loop", "loop", False),
        (Abilities(erofs_file=False, erofs_loop=False, overlay=True, append=False), "overlay", None, True),
        (Abilities(erofs_file=True, erofs_loop=True, overlay=False, append=False), "copy", "file", True),
        (NOTHING, "copy", None, True),
    ],
)
def test_the_best_that_works_is_taken(can: Abilities, name: str, erofs: str | None, unpacks: bool) -> None:
    driver = choose_driver(None, can)
    assert (driver.name, driver.erofs, driver.unpacks, driver.append) == (name, erofs, unpacks, can.append)


def test_layers_of_the_other_form_stay_usable() -> None:
    assert choose_driver("overlay", EVERYTHING).erofs == "file"
    assert choose_driver("erofs-loop", EVERYTHING).erofs == "loop"


@pytest.mark.parametrize("name", ["erofs", "erofs-loop", "overlay"])
def test_a_driver_that_does_not_work_is_refused_with_those_that_do(name: str) -> None:
    with pytest.raises(Unsupported) as caught:
        choose_driver(name, NOTHING)
    assert caught.value.hint == "usable: copy"


def test_an_unknown_driver_is_refused() -> None:
    with pytest.raises(InvalidInput, match="aufs"):
        choose_driver("aufs", EVERYTHING)


def test_dockers_names_are_understood() -> None:
    assert choose_driver("overlay2", EVERYTHING).name == "overlay"
    assert choose_driver("vfs", EVERYTHING).name == "copy"


def test_whatever_works_something_is_chosen() -> None:
    for bits in itertools.product((True, False), repeat=4):
        can = Abilities(erofs_file=bits[0], erofs_loop=bits[1], overlay=bits[2], append=bits[3])
        assert choose_driver(None, can).copies is not can.overlay


def test_garbage_is_what_nobody_needs() -> None:
    a, b, c = (Digest(f"sha256:{letter * 64}") for letter in "abc")
    assert plan_garbage({c, b, a}, {b}, set()) == [a, c]
    assert plan_garbage({a}, {a, b}) == []

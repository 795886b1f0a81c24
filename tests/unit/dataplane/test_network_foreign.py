"""What is read from nft's listing of other programs' chains, and what is put into them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from havre.dataplane.otherfilters import read_ruleset, render_passes
from unit.dataplane.test_network_rules import DEFAULT


def chain(table: str, name: str, hook: str, policy: str = "accept") -> dict[str, Any]:
    place = {"family": "ip", "table": table, "name": name}
    return {"chain": {**place, "type": "filter", "hook": hook, "prio": 0, "policy": policy}}


def rule(table: str, name: str, *expr: dict[str, Any], handle: int = 1, comment: str = "") -> dict[str, Any]:
    return {"rule": {"family": "ip", "table": table, "chain": name, "handle": handle, "comment": comment, "expr": expr}}


def passing(key: str, link: str) -> tuple[dict[str, Any], ...]:
    return {"match": {"op": "==", "left": {"meta": {"key": key}}, "right": link}}, {"accept": None}


@pytest.mark.parametrize(
    ("items", "denies"),
    [
        ([], False),
        ([chain("filter", "INPUT", "input")], False),
        ([chain("filter", "INPUT", "input", "drop")], True),
        (
            [chain("filter", "INPUT", "input"), rule("filter", "deep", {"xt": {"type": "target", "name": "REJECT"}})],
            True,
        ),
        ([chain("filter", "INPUT", "input"), rule("other", "x", {"drop": None})], False),
        ([chain("havre_b", "admit", "input"), rule("havre_b", "remember", {"drop": None})], False),
    ],
)
def test_who_may_deny_what_arrives(items: list[dict[str, Any]], denies: bool) -> None:
    assert read_ruleset(json.dumps({"nftables": items}), "havre").denies_input is denies


def test_rules_in_others_chains_follow_the_bridges() -> None:
    items = [
        chain("filter", "FORWARD", "forward", "drop"),
        chain("kind", "forward", "forward"),
        rule("filter", "FORWARD", *passing("iifname", "havre0"), handle=7, comment="havre"),
        rule("filter", "FORWARD", *passing("oifname", "gone"), handle=8, comment="havre"),
        rule("filter", "FORWARD", *passing("oifname", "havre0"), handle=9, comment="somebody else's"),
    ]
    foreign = read_ruleset(json.dumps({"nftables": items}), "havre")
    assert [str(each) for each in foreign.forward if each.drops] == ["ip filter FORWARD"]
    assert render_passes(foreign, [DEFAULT], "havre") == (
        "delete rule ip filter FORWARD handle 8\n"
        'insert rule ip filter FORWARD oifname "havre0" accept comment "havre"\n'
    )
    assert render_passes(foreign, [], "havre") == (
        "delete rule ip filter FORWARD handle 8\ndelete rule ip filter FORWARD handle 7\n"
    )


@pytest.mark.parametrize("flags", ["owner", ["owner", "persist"]])
def test_nothing_is_put_into_a_table_that_belongs_to_a_program(flags: object) -> None:
    table = {"table": {"family": "ip", "name": "firewalld", "handle": 1, "flags": flags}}
    listing = {
        "nftables": [table, chain("firewalld", "FORWARD", "forward", "drop"), chain("x", "F", "forward", "drop")]
    }
    foreign = read_ruleset(json.dumps(listing), "havre")
    assert [(each.table, each.drops, each.owned) for each in foreign.forward] == [
        ("firewalld", True, True),
        ("x", True, False),
    ]
    passes = render_passes(foreign, [DEFAULT], "havre")
    assert "firewalld" not in passes
    assert "insert rule ip x F" in passes

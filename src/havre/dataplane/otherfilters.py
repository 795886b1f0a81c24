"""What other programs' packet filters do to our traffic, read from nft's listing. Pure.

Two facts decide how ports are published (docs/decisions/211):

    denies_input   whether some chain may drop packets for the host itself. Then clients of a published port must pass
                   those chains first (`rules`), unless the daemon's policy says that publishing overrides them.
    forward        the chains for packets forwarded to containers. Where they drop, nothing arrives; with the policy
                   `docker`, `render_passes` inserts rules at their head that leave the decision to our own table.

A chain counts as dropping if its policy drops, or any rule of its table has such a verdict; matches are not evaluated.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from havre.dataplane.plan import Bridge

_WORDS = ('"drop"', '"reject"', '"REJECT"', '"DROP"', '"queue"')


@dataclass(frozen=True)
class Chain:
    """A base chain of another program. `passes` are our rules in it, by handle: (device, "iifname" or "oifname").

    `owned`: its table belongs to a running program, as firewalld's does; no other program can add rules to it.
    """

    family: str
    table: str
    name: str
    drops: bool
    passes: tuple[tuple[int, str, str], ...] = ()
    owned: bool = False

    def __str__(self) -> str:
        return f"{self.family} {self.table} {self.name}"


@dataclass(frozen=True)
class Foreign:
    """The host's own filters, as far as they affect us."""

    denies_input: bool = False
    forward: tuple[Chain, ...] = ()


def read_ruleset(text: str, ours: str) -> Foreign:
    """Parse `nft -j list ruleset`; `ours` is our table's name and the comment of our rules in others' chains.

    Tables of other havre daemons are skipped like our own: those daemons respect the host's chains themselves.
    """
    items = [item for item in json.loads(text)["nftables"] if not _is_engines(item)]
    rules: list[dict[str, Any]] = [each["rule"] for each in items if "rule" in each]
    chains: list[dict[str, Any]] = [each["chain"] for each in items if "chain" in each]
    tables = [each["table"] for each in items if "table" in each]
    owned = {(table["family"], table["name"]) for table in tables if "owner" in table.get("flags", ())}
    harsh = {
        (rule["family"], rule["table"]) for rule in rules if any(word in json.dumps(rule["expr"]) for word in _WORDS)
    }

    def on(hook: str) -> list[Chain]:
        return [
            Chain(
                family=chain["family"],
                table=chain["table"],
                name=chain["name"],
                drops=chain.get("policy") == "drop" or (chain["family"], chain["table"]) in harsh,
                passes=tuple(_passes(chain, rules, ours)),
                owned=(chain["family"], chain["table"]) in owned,
            )
            for chain in chains
            if chain.get("hook") == hook and chain.get("type") == "filter" and chain["family"] in ("ip", "ip6", "inet")
        ]

    return Foreign(any(chain.drops for chain in on("input")), tuple(on("forward")))


def _is_engines(item: dict[str, Any]) -> bool:
    table: str = (item.get("rule") or item.get("chain") or {}).get("table", "")
    return table == "havre" or table.startswith("havre_")


def _passes(chain: dict[str, Any], rules: list[dict[str, Any]], ours: str) -> list[tuple[int, str, str]]:
    place = (chain["family"], chain["table"], chain["name"])
    own = (r for r in rules if r.get("comment") == ours and (r["family"], r["table"], r["chain"]) == place)
    return [
        (rule["handle"], rule["expr"][0]["match"]["right"], rule["expr"][0]["match"]["left"]["meta"]["key"])
        for rule in own
    ]


def render_passes(foreign: Foreign, bridges: Collection[Bridge], ours: str) -> str:
    """Commands that update our rules in others' forward chains: accept traffic from and to our bridges only."""
    wanted = {(bridge.link, key) for bridge in bridges for key in ("iifname", "oifname")}
    lines = []
    for chain in foreign.forward:
        present = {(link, key): handle for handle, link, key in chain.passes}
        lines += [f"delete rule {chain} handle {present[at]}\n" for at in sorted(present.keys() - wanted)]
        if chain.drops and not chain.owned:
            lines += [
                f'insert rule {chain} {key} "{link}" accept comment "{ours}"\n'
                for link, key in sorted(wanted - present.keys())
            ]
    return "".join(lines)

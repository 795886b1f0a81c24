"""Checks which kernel options our nftables tables need and this kernel lacks.

Each need is tried alone, in a table that the same transaction deletes again, so that nothing changes. Where the kernel
lacks the family of an IP version, the other needs are tried in the family inet, if it exists.

Source: net/netfilter/Kconfig and net/ipv4/netfilter/Kconfig of Linux 6.12.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

Run = Callable[[str], object]

_NEEDS = (
    ("CONFIG_NFT_CT", "type filter hook output priority 0; ct state new accept"),
    ("CONFIG_NFT_FIB_IPV{version}", "type filter hook prerouting priority 0; fib daddr type local accept"),
    ("CONFIG_NFT_NAT", "type nat hook prerouting priority dstnat; tcp dport 1 dnat {family} to {address}"),
    ("CONFIG_NFT_MASQ", "type nat hook postrouting priority srcnat; masquerade"),
)
_FAMILIES = {4: ("ip", "192.0.2.1"), 6: ("ip6", "2001:db8::1")}


def missing_options(run: Run, versions: Collection[int], table: str) -> list[str]:
    """The options that the kernel lacks for rules of these IP versions. `run` runs nft commands and raises OSError.

    `table` must be a name that is not in use. Blocking.
    """
    if not _works(run, "list tables"):
        return ["CONFIG_NF_TABLES"]
    missing: dict[str, None] = {}
    for version in sorted(versions):
        family, address = _FAMILIES[version]
        place = next((word for word in (family, "inet") if _works(run, _trial(word, table, ""))), None)
        if place != family:
            missing[f"CONFIG_NF_TABLES_IPV{version}"] = None
        for option, text in _NEEDS if place else ():
            chain = f"chain probe {{ {text.format(family=family, address=address)}; }}"
            if not _works(run, _trial(place or family, table, chain)):
                missing[option.format(version=version)] = None
    return list(missing)


def _trial(family: str, table: str, content: str) -> str:
    return f"table {family} {table} {{ {content}; }}\ndelete table {family} {table}\n"


def _works(run: Run, commands: str) -> bool:
    try:
        run(commands)
    except OSError:
        return False
    return True

"""What our tables need of the kernel's nftables, and which options a kernel that refuses them was built without.

Each need is tried alone, in a table that the same transaction deletes again: the kernel answers, and nothing changes.

Source: net/netfilter/Kconfig and net/ipv4/netfilter/Kconfig of Linux 6.12.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

_NEEDS = (
    ("CONFIG_NF_TABLES", ""),
    ("CONFIG_NF_TABLES_IPV{version}", "type filter hook output priority 0"),
    ("CONFIG_NFT_CT", "type filter hook output priority 0; ct state new accept"),
    ("CONFIG_NFT_FIB_IPV{version}", "type filter hook prerouting priority 0; fib daddr type local accept"),
    ("CONFIG_NFT_NAT", "type nat hook prerouting priority dstnat; tcp dport 1 dnat to {address}"),
    ("CONFIG_NFT_MASQ", "type nat hook postrouting priority srcnat; masquerade"),
)
_FAMILIES = {4: ("ip", "192.0.2.1"), 6: ("ip6", "2001:db8::1")}


def missing_options(run: Callable[[str], object], versions: Collection[int], table: str) -> list[str]:
    """The options that the kernel lacks for rules of these IP versions; `run` carries out nft commands or OSError.

    `table` is a name that nobody else uses. Blocking.
    """
    missing: dict[str, None] = {}
    for version in sorted(versions):
        family, address = _FAMILIES[version]
        for option, chain in _NEEDS:
            content = f"chain probe {{ {chain.format(address=address)}; }}" if chain else ""
            try:
                run(f"table {family} {table} {{ {content}; }}\ndelete table {family} {table}\n")
            except OSError:
                missing[option.format(version=version)] = None
    return list(missing)

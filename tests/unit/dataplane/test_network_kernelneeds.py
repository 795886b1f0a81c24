"""A kernel whose nftables lacks something: which option it is said to lack, and what happens to the rules."""

from __future__ import annotations

import asyncio

import pytest

from havre.dataplane.firewall import Firewall
from havre.dataplane.ipam import parse_pool
from havre.dataplane.kernelneeds import missing_options
from havre.dataplane.plan import Bridge
from havre.errors import Unsupported
from havre.linux.nft import Nft

BRIDGE = Bridge("1" * 64, "bridge", "havre0", (parse_pool("172.17.0.0/16"),))


class Kernel(Nft):
    """nftables that refuses commands with any of these words, as nft says it where a module is missing."""

    def __init__(self, *lacks: str) -> None:
        self._lacks = lacks
        self.asked: list[str] = []

    def run(self, commands: str, *, json: bool = False, terse: bool = False) -> str:
        self.asked.append(commands)
        if any(word in commands for word in self._lacks):
            raise OSError(2, "nft: Error: Could not process rule: No such file or directory")
        return '{"nftables": []}'

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("lacks", "versions", "missing"),
    [
        ((), (4, 6), []),
        (("type nat",), (4,), ["CONFIG_NFT_NAT", "CONFIG_NFT_MASQ"]),
        (("masquerade",), (4, 6), ["CONFIG_NFT_MASQ"]),
        (("table ip6",), (4,), []),
        (("table ip6",), (4, 6), ["CONFIG_NF_TABLES_IPV6"]),
        (("table ip ", "dnat"), (4,), ["CONFIG_NF_TABLES_IPV4", "CONFIG_NFT_NAT"]),
        (("table",), (4, 6), ["CONFIG_NF_TABLES"]),
        (("fib daddr",), (4, 6), ["CONFIG_NFT_FIB_IPV4", "CONFIG_NFT_FIB_IPV6"]),
    ],
)
def test_what_is_missing(lacks: tuple[str, ...], versions: tuple[int, ...], missing: list[str]) -> None:
    kernel = Kernel(*lacks)
    assert missing_options(kernel.run, versions, "t_probe") == missing
    assert all("delete table" in commands for commands in kernel.asked[1:])


def _admit(kernel: Kernel, monkeypatch: pytest.MonkeyPatch, versions: tuple[int, ...] = (4, 6)) -> None:
    monkeypatch.setattr("havre.dataplane.firewall.Nft", lambda: kernel)
    asyncio.run(Firewall("havre", versions).add_bridge(BRIDGE))


def test_the_error_names_each_option_once_and_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unsupported) as caught:
        _admit(Kernel("type nat"), monkeypatch)
    said = f"{caught.value.message} {caught.value.hint}"
    assert [said.count(word) for word in ("CONFIG_NFT_NAT", "CONFIG_NFT_MASQ", "--iptables=false")] == [1, 1, 1]


def test_without_rules_nothing_is_asked_of_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel("table")
    _admit(kernel, monkeypatch, ())
    assert kernel.asked == []
    kernel = Kernel("table")
    monkeypatch.setattr("havre.dataplane.firewall.Nft", lambda: kernel)
    asyncio.run(Firewall("havre").stop(remove=True))  # a kernel that refuses to delete has nothing to be deleted

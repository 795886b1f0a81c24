"""This kernel has what our tables need, and is asked without a trace."""

from __future__ import annotations

from network_world import run

from havre.dataplane.kernelneeds import missing_options
from havre.linux.nft import Nft


def test_nothing_is_missing_here_and_nothing_stays() -> None:
    nft = Nft()
    try:
        assert missing_options(nft.run, (4, 6), "hv_probe") == []
        assert run("nft list ruleset") == ""
    finally:
        nft.close()

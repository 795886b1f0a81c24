"""Hints for docker's commands that havre does not have. Imported only when one is typed."""

from __future__ import annotations

_SWARM = "havre has no swarm yet; `havre compose` runs sets of containers on one host"

POINTERS = {
    "bake": "`havre compose build` builds several images at once",
    "scan": "havre does not scan for vulnerabilities yet; `havre image sbom IMAGE` lists an image's packages",
    "scout": "havre does not scan for vulnerabilities yet; `havre image sbom IMAGE` lists an image's packages",
    "sbom": "`havre image sbom IMAGE` lists an image's packages",
    "plugin": "plugins are found by their files in /run/docker/plugins and /etc/docker/plugins; none can be installed",
    "trust": "signatures are checked by `signature-keys` in daemon.json and `havre pull --verify KEY`",
    **dict.fromkeys(("swarm", "node", "service", "stack", "secret", "config"), _SWARM),
}


def pointer(word: str) -> str:
    """What to use instead of a docker command, "" for any other word."""
    return POINTERS.get(word, "")

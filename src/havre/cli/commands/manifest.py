"""The table of `havre manifest`."""

from __future__ import annotations

from havre.cli.parser import Command
from havre.golang.flags import Flag

_INSECURE = Flag("insecure", "", "", "Allow communication with an insecure registry")

COMMANDS = (
    Command("annotate", "[OPTIONS] MANIFEST_LIST MANIFEST", "Add information to a local image manifest",
            "manifest:annotate", (2, 2), (
        Flag("arch", "", "string", "Set the architecture"),
        Flag("os", "", "string", "Set the operating system"),
        Flag("os-features", "", "strings", "Set features of the operating system"),
        Flag("os-version", "", "string", "Set the version of the operating system"),
        Flag("variant", "", "string", "Set the variant of the architecture"),
    )),
    Command("create", "MANIFEST_LIST MANIFEST [MANIFEST...]", "Create a local manifest list to annotate and push",
            "manifest:create", (2, None), (
        Flag("amend", "a", "", "Amend an existing manifest list"),
        _INSECURE,
    )),
    Command("inspect", "[OPTIONS] [MANIFEST_LIST] MANIFEST", "Display a manifest or a manifest list",
            "manifest:inspect", (1, 2), (
        _INSECURE,
        Flag("verbose", "v", "", "Show references, layers, platforms and attestations, too"),
    )),
    Command("push", "[OPTIONS] MANIFEST_LIST", "Push a manifest list to a repository", "manifest:push", (1, 1), (
        _INSECURE,
        Flag("purge", "p", "", "Remove the local manifest list afterwards"),
    )),
    Command("rm", "MANIFEST_LIST [MANIFEST_LIST...]", "Delete local manifest lists", "manifest:rm", (1, None)),
)  # fmt: skip

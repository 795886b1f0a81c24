"""The table of `havre registry`."""

from __future__ import annotations

from havre.cli.parser import Command
from havre.golang.flags import Flag

COMMANDS = (
    Command("garbage-collect", "[OPTIONS]", "Delete blobs that no manifest refers to", "registry:collect", (0, 0), (
        Flag("root", "", "string", "Directory that holds everything", "/var/lib/havre-registry"),
    ), long="Remove blobs that no manifest names, a day after they came. The registry may run meanwhile."),
    Command("serve", "[OPTIONS]", "Serve a registry of your own", "registry:serve", (0, 0), (
        Flag("addr", "", "string", "Where to listen", "127.0.0.1:5000"),
        Flag("auth", "", "string", "How accounts show themselves (basic, token)", "basic"),
        Flag("htpasswd", "", "string", "File of accounts (lines of `htpasswd -B`) that are let in"),
        Flag("read-only", "", "", "Refuse whatever changes something"),
        Flag("root", "", "string", "Directory that holds everything", "/var/lib/havre-registry"),
        Flag("tlscert", "", "string", "Certificate to serve HTTPS with"),
        Flag("tlskey", "", "string", "Key of the certificate"),
        Flag("upstream", "", "string", "Be a pull-through cache of this registry (docker.io, host:port)"),
    ), long="Serve a registry of your own.\n"
            "Without --htpasswd it knows no accounts: give it an address that only those reach who may use it."),
)  # fmt: skip

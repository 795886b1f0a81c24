"""The table of `havre registry`."""

from __future__ import annotations

from havre.cli.parser import Command
from havre.golang.flags import Flag

COMMANDS = (
    Command("garbage-collect", "[OPTIONS]", "Delete blobs that no manifest refers to", "registry:collect", (0, 0), (
        Flag("root", "", "string", "Root directory of the registry", "/var/lib/havre-registry"),
    ), long="Remove blobs that no manifest names, a day after they came. The registry may run meanwhile."),
    Command("serve", "[OPTIONS]", "Serve a registry", "registry:serve", (0, 0), (
        Flag("addr", "", "string", "Address to listen on", "127.0.0.1:5000"),
        Flag("auth", "", "string", "Authentication method of accounts (basic, token)", "basic"),
        Flag("htpasswd", "", "string", "File of accounts (lines of `htpasswd -B`)"),
        Flag("read-only", "", "", "Refuse all changes"),
        Flag("root", "", "string", "Root directory of the registry", "/var/lib/havre-registry"),
        Flag("tlscert", "", "string", "Certificate to serve HTTPS with"),
        Flag("tlskey", "", "string", "Key of the certificate"),
        Flag("upstream", "", "string", "Be a pull-through cache of this registry (docker.io, host:port)"),
    ), long="Serve a registry of your own.\n"
            "Without --htpasswd there is no authentication: listen only where trusted clients can connect."),
)  # fmt: skip

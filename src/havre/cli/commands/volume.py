"""The table of `havre volume`."""

from __future__ import annotations

from havre.cli.commands.shared import filter_flag, force_flag, format_flag, plan_flags
from havre.cli.parser import Command
from havre.golang.flags import Flag

CLUSTER_FLAGS = (
    ("availability", "string"), ("group", "string"), ("limit-bytes", "string"), ("required-bytes", "string"),
    ("scope", "string"), ("secret", "map"), ("sharing", "string"), ("topology-preferred", "list"),
    ("topology-required", "list"), ("type", "string"),
)  # fmt: skip

COMMANDS = (
    Command("clone cp snapshot", "VOLUME NEW_VOLUME", "Create a volume with the content of another",
            "volumes:clone", (2, 2)),
    Command("create", "[OPTIONS] [VOLUME]", "Create a volume", "volumes:create", (0, 1), (
        Flag("driver", "d", "string", "Name of the volume's driver", "local"),
        Flag("label", "", "list", "Set metadata of the volume"),
        Flag("opt", "o", "map", "Set options of the driver"),
        *(Flag(name, "", kind, "For cluster volumes, which need a swarm: refused") for name, kind in CLUSTER_FLAGS),
    )),
    Command("du", "[VOLUME...]", "Show disk usage of volumes", "volumes:du", (0, None)),
    Command("export", "[OPTIONS] VOLUME", "Export a volume as a tar archive", "volumes:export", (1, 1),
            (Flag("output", "o", "string", "Write to a file, instead of STDOUT"),
             Flag("zstd", "", "", "Compress it with zstd"))),
    Command("import", "VOLUME [FILE|-]", "Create a volume from a tar archive", "volumes:import_", (1, 2),
            long="Create a volume from a tar archive, compressed or not, from a file or STDIN. An invalid archive"
                 " leaves no volume."),
    Command("inspect", "[OPTIONS] VOLUME [VOLUME...]", "Display detailed information on one or more volumes",
            "inspect:volumes", (1, None), (format_flag("f", table=False),)),
    Command("ls list", "[OPTIONS]", "List volumes", "volumes:ls", (0, 0), (
        Flag("cluster", "", "", "Only show cluster volumes (always none)"),
        filter_flag(help='Show only what matches the condition (e.g. "dangling=true")'),
        format_flag(),
        Flag("quiet", "q", "", "Only show volume names"),
    )),
    Command("prune", "[OPTIONS]", "Remove unused local volumes", "prune:volumes", (0, 0), (
        Flag("all", "a", "", "Remove all unused volumes, not only anonymous ones"),
        filter_flag("", 'Remove only what matches the condition (e.g. "label=<label>")'),
        force_flag("Do not ask for confirmation"),
        *plan_flags(),
    )),
    Command("rename mv", "VOLUME NEW_NAME", "Rename a volume", "volumes:rename", (2, 2)),
    Command("rm remove", "[OPTIONS] VOLUME [VOLUME...]", "Remove one or more volumes", "volumes:rm", (1, None),
            (force_flag("Ignore volumes that do not exist"),),
            long="Remove one or more volumes. A volume that a container uses cannot be removed."),
    Command("update", "[OPTIONS] [VOLUME]", "Update a volume (cluster volumes only)", "volumes:update", (1, 1), (
        Flag("availability", "", "string", 'Cluster volume availability ("active", "pause", "drain")', "active"),
    )),
)  # fmt: skip

"""The table of `havre network`."""

from __future__ import annotations

from havre.cli.commands.shared import filter_flag, force_flag, format_flag, plan_flags
from havre.cli.parser import Command
from havre.golang.flags import Flag

COMMANDS = (
    Command("connect", "[OPTIONS] NETWORK CONTAINER", "Connect a container to a network", "networks:connect", (2, 2), (
        Flag("alias", "", "strings", "Add network-scoped alias for the container"),
        Flag("driver-opt", "", "strings", "Options of the network's driver"),
        Flag("gw-priority", "", "int", "Priority as default gateway; the highest wins, negative values are allowed"),
        Flag("ip", "", "string", 'IPv4 address (e.g., "172.30.100.104")'),
        Flag("ip6", "", "string", 'IPv6 address (e.g., "2001:db8::33")'),
        Flag("link", "", "list", "Add a link to another container"),
        Flag("link-local-ip", "", "strings", "Add a link-local address of the container"),
    )),
    Command("create", "[OPTIONS] NETWORK", "Create a network", "networks:create", (1, 1), (
        Flag("attachable", "", "", "Enable manual container attachment"),
        Flag("aux-address", "", "map", "Auxiliary IPv4 or IPv6 addresses used by the network driver"),
        Flag("config-from", "", "string", "The network whose configuration is copied"),
        Flag("config-only", "", "", "Create a network that is a configuration only"),
        Flag("driver", "d", "string", "Driver of the network", "bridge"),
        Flag("gateway", "", "strings", "IPv4 or IPv6 gateway of the subnet"),
        Flag("ingress", "", "", "Create a swarm's routing-mesh network"),
        Flag("internal", "", "", "Restrict external access to the network"),
        Flag("ip-range", "", "strings", "Allocate container IPs from a sub-range"),
        Flag("ipam-driver", "", "string", "Driver that manages addresses", "default"),
        Flag("ipam-opt", "", "map", "Options of the address management driver"),
        Flag("ipv4", "", "", "Enable IPv4 (false is refused)", True),
        Flag("ipv6", "", "", "Enable IPv6"),
        Flag("label", "", "list", "Set metadata of the network"),
        Flag("opt", "o", "map", "Options of the network's driver"),
        Flag("scope", "", "string", "Control the network's scope"),
        Flag("subnet", "", "strings", "Subnet in CIDR notation"),
    )),
    Command("diagram", "[OPTIONS]", "Draw networks, containers, addresses and ports", "diagram:diagram", (0, 0), (
        Flag("svg", "", "string", "Write an SVG file, instead of text on STDOUT"),
    )),
    Command("disconnect", "[OPTIONS] NETWORK CONTAINER", "Disconnect a container from a network",
            "networks:disconnect", (2, 2), (force_flag("Force the container off the network"),)),
    Command("inspect", "[OPTIONS] NETWORK [NETWORK...]", "Display detailed information on one or more networks",
            "inspect:networks", (1, None),
            (format_flag("f", table=False), Flag("verbose", "v", "", "Verbose output for diagnostics"))),
    Command("ls list", "[OPTIONS]", "List networks", "networks:ls", (0, 0), (
        filter_flag(help='Show only what matches the condition (e.g. "driver=bridge")'),
        format_flag(),
        Flag("no-trunc", "", "", "Do not truncate output"),
        Flag("quiet", "q", "", "Only show network IDs"),
    )),
    Command("prune", "[OPTIONS]", "Remove all unused networks", "prune:networks", (0, 0), (
        filter_flag("", 'Remove only what matches the condition (e.g. "until=<timestamp>")'),
        force_flag("Do not ask for confirmation"),
        *plan_flags(),
    )),
    Command("rm remove", "NETWORK [NETWORK...]", "Remove one or more networks", "networks:rm", (1, None),
            (force_flag("Ignore networks that do not exist"),)),
)  # fmt: skip

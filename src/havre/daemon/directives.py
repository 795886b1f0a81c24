"""The directives of the daemon, one table for its command line and `daemon.json`, and the help made of it.

Source: dockerd(8), "Daemon configuration file".
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from havre.golang.flaghelp import render_flags
from havre.golang.flags import Flag

Kind = Literal["flag", "text", "number", "list", "map", "maps"]

DEFAULT_FILE = Path("/etc/havre/daemon.json")


@dataclass(frozen=True, slots=True)
class Directive:
    """One directive: its flag, its key in the file, its kind. `used` is False if it has no effect here.

    One without a flag is for the file only.
    """

    flag: str
    key: str
    kind: Kind
    help: str
    short: str = ""
    used: bool = True


def _d(flag: str, kind: Kind, help: str, key: str = "", short: str = "", used: bool = True) -> Directive:
    return Directive(flag, key or flag, kind, help, short, used)


DIRECTIVES = (
    _d("add-runtime", "map", "Register an additional OCI runtime, NAME=PATH", "runtimes"),
    _d("allowed-host", "list", "Host names accepted in requests by TCP, besides the daemon's own", "allowed-hosts"),
    _d("authorization-plugin", "list", "Plugins that authorize every request and response", "authorization-plugins"),
    _d("bip", "text", "Address of the default bridge, with its prefix length"),
    _d("bip6", "text", "IPv6 address of the default bridge, with its prefix length"),
    _d("bridge", "text", "Existing bridge for the default network, or none to disable it", short="b"),
    Directive("", "builder", "map", "Limits of the build cache, and entitlements that builds may request"),
    _d("cdi-spec-dir", "list", "Directories of CDI device specifications", "cdi-spec-dirs"),
    _d("cgroup-parent", "text", "Parent cgroup of all containers"),
    _d("config-file", "text", "Configuration file"),
    _d("data-root", "text", "Root directory of persistent state"),
    _d("debug", "flag", "Enable debug mode", short="D"),
    _d("default-address-pool", "list", "Pool of new networks, base=SUBNET,size=LENGTH", "default-address-pools"),
    _d("default-cgroupns-mode", "text", "Default cgroup namespace of containers, host or private"),
    _d("default-gateway", "text", "Default gateway of containers on the default bridge"),
    _d("default-gateway-v6", "text", "IPv6 default gateway of containers on the default bridge"),
    _d("default-ipc-mode", "text", "Default IPC namespace of containers, private or shareable"),
    _d("default-network-opt", "maps", "Options of new networks, DRIVER=KEY=VALUE", "default-network-opts"),
    _d("default-runtime", "text", "Default OCI runtime"),
    _d("default-shm-size", "text", "Default size of /dev/shm"),
    _d("default-stop-timeout", "number", "Seconds from a container's stop signal to SIGKILL, 10 by default"),
    _d("default-ulimit", "map", "Default ulimits of containers, NAME=SOFT[:HARD]", "default-ulimits"),
    _d("dns", "list", "DNS servers"),
    _d("dns-opt", "list", "DNS options", "dns-opts"),
    _d("dns-search", "list", "DNS search domains"),
    _d("exec-root", "text", "Root directory of run state"),
    _d("experimental", "flag", "Enable experimental features: checkpoints"),
    _d("feature", "map", "Features, NAME=true or false: buildkit, cdi and time-namespaces, on by default", "features"),
    _d("firewall-backend", "text", "nftables; iptables is refused"),
    _d("fixed-cidr", "text", "Range of addresses for containers on the default bridge"),
    _d("fixed-cidr-v6", "text", "IPv6 range of addresses for containers on the default bridge"),
    _d("group", "text", "Group of the unix socket", short="G"),
    _d("host", "list", "Sockets to listen on: unix://PATH, tcp://HOST:PORT, fd://", "hosts", "H"),
    _d("host-gateway-ip", "list", "Addresses for the name host-gateway, one of IPv4, one of IPv6", "host-gateway-ips"),
    Directive("", "host-gateway-ip", "text", "Address for the name host-gateway; superseded by host-gateway-ips"),
    _d("http-proxy", "text", "Proxy of the daemon's own HTTP requests, instead of HTTP_PROXY"),
    _d("https-proxy", "text", "Proxy of the daemon's own HTTPS requests, instead of HTTPS_PROXY"),
    _d("icc", "flag", "Allow traffic between containers on the default bridge (--icc=false: by links only)"),
    _d("init", "flag", "Run an init process in containers"),
    _d("init-path", "text", "Program that --init runs"),
    _d("insecure-registry", "list", "Registries reached without TLS or with any certificate", "insecure-registries"),
    _d("ip", "text", "Host address of ports published from the default bridge"),
    _d("ip-forward", "flag", "Enable net.ipv4.ip_forward; --ip-forward=false leaves it unchanged"),
    _d("ip-masq", "flag", "Masquerade traffic of the default bridge with the host's address"),
    _d("ip6tables", "flag", "Use nftables rules for IPv6; otherwise relays serve published ports"),
    _d("iptables", "flag", "Use nftables rules; otherwise relays serve published ports, without NAT"),
    _d("ipv6", "flag", "Enable IPv6 on the default bridge"),
    _d("label", "list", "Labels of the daemon", "labels"),
    _d("live-restore", "flag", "Keep containers running while the daemon is down (always so)"),
    _d("log-driver", "text", "Default log driver"),
    _d("log-level", "text", "debug, info, warn, error, fatal", short="l"),
    _d("log-opt", "map", "Default log options", "log-opts"),
    _d("max-concurrent-downloads", "number", "Layers pulled at once, 3 by default"),
    _d("max-concurrent-uploads", "number", "Layers pushed at once, 2 by default"),
    _d("max-download-attempts", "number", "Attempts of a download that makes no progress, 5 by default"),
    Directive("", "min-api-version", "text", "Oldest API version that is spoken, 1.24 by default"),
    _d("mtu", "number", "MTU of the default bridge"),
    _d("no-proxy", "text", "Hosts, domains and networks reached without a proxy, instead of NO_PROXY"),
    _d("no-new-privileges", "flag", "Prevent processes in containers from gaining privileges, such as by setuid"),
    _d("pidfile", "text", "File for the daemon's PID", short="p"),
    Directive("", "proxies", "map", "http-proxy, https-proxy and no-proxy, in the file"),
    _d("publish-policy", "text", "host: published ports heed the host's firewall; docker: they override it"),
    Directive("", "registry-limits", "map", "Time limits for registries, and size limits of layers"),
    _d("registry-mirror", "list", "Mirrors of Docker Hub", "registry-mirrors"),
    _d("seccomp-profile", "text", "File of the seccomp profile of containers and builds, builtin or unconfined"),
    _d("signature-key", "map", "Public key required to have signed images, NAME=FILE (* for all)", "signature-keys"),
    _d("shutdown-timeout", "number", "Seconds to wait for requests under way when stopping"),
    _d("storage-driver", "text", "erofs, erofs-loop, overlay or copy", short="s"),
    _d("tls", "flag", "Use TLS on TCP sockets; --tls=false allows plain TCP without authentication"),
    _d("tlscacert", "text", "Trust clients with certificates signed by this CA"),
    _d("tlscert", "text", "TLS certificate"),
    _d("tlskey", "text", "TLS key"),
    _d("tlsverify", "flag", "Use TLS and require client certificates"),
    _d("validate", "flag", "Check the configuration and exit"),
    _d("userns-remap", "text", "Run containers in a user namespace: default, USER[:GROUP] or UID[:GID]"),
    _d("userland-proxy-path", "text", "Accepted; the daemon serves published ports itself"),
    _d("userland-proxy", "flag", "Serve published ports by userland sockets where rules cannot"),
    *(
        _d(name, "flag", "No effect here", used=False)
        for name in ("allow-direct-routing", "ip-forward-no-drop", "raw-logs")
    ),
    *(
        _d(name, "text", "No effect here", used=False)
        for name in (
            "bridge-accept-fwmark", "containerd", "containerd-namespace", "containerd-plugins-namespace",
            "metrics-addr", "network-control-plane-mtu", "swarm-default-advertise-addr",
        )
    ),
    *(
        _d(name, "list", "No effect here", key, used=False)
        for name, key in (
            ("allow-nondistributable-artifacts", ""), ("node-generic-resource", "node-generic-resources"),
        )
    ),
    # Known to dockerd and refused here by `configrefusals`: ignoring them would mislead.
    *(_d(name, "flag", "Refused unless false", used=False) for name in ("rootless", "selinux-enabled")),
    *(_d(name, "text", "Refused", used=False) for name in ("api-cors-header", "cpu-rt-period", "cpu-rt-runtime")),
    _d("nri-opts", "map", "Refused unless enable=false", used=False),
    _d("exec-opt", "list", "Refused but for native.cgroupdriver=cgroupfs", "exec-opts", used=False),
    _d("storage-opt", "list", "Refused", "storage-opts", used=False),
)  # fmt: skip
BY_KEY = {directive.key: directive for directive in DIRECTIVES}
BY_FLAG = {directive.flag.replace("-", "_"): directive for directive in DIRECTIVES if directive.flag}
_PFLAG = {"flag": "", "text": "string", "number": "int", "list": "list", "map": "map", "maps": "maps"}
FLAGS = (
    *(Flag(d.flag, d.short, _PFLAG[d.kind], d.help, hidden=not d.used) for d in BY_FLAG.values()),
    Flag("version", "v", "", "Print the version and quit"),
)


def usage(columns: int) -> str:
    """The text of `--help`, for a terminal of `columns`."""
    head = "Usage:  havred [OPTIONS]\n\nA container engine that any Docker client can drive.\n\nOptions:\n"
    return head + render_flags(FLAGS, columns)


def man_page() -> str:
    """havred(8) in roff: the flags, and each one's key in the file."""

    def escaped(text: str) -> str:
        return text.replace("\\", "\\e").replace("-", "\\-")

    lines = [
        '.TH "HAVRED" 8 "" havre "havre manual"',
        ".SH NAME",
        "havred \\- a container engine that any Docker client can drive",
        ".SH SYNOPSIS",
        ".B havred",
        "[OPTIONS]",
        ".SH DESCRIPTION",
        f"A directive is given as a flag or in the JSON file {DEFAULT_FILE}, not in both.",
        "SIGHUP reads the file again. After SIGTERM and SIGINT containers run on; with the host (or after SIGPWR) they",
        "are stopped first.",
        ".SH DIRECTIVES",
    ]
    for directive in sorted(DIRECTIVES, key=lambda each: each.flag or each.key):
        if directive.used:
            head = f"--{directive.flag}" if directive.flag else directive.key
            short = f"-{directive.short}, " if directive.short else ""
            kind = f" \\fI{kind}\\fR" if (kind := _PFLAG[directive.kind]) else ""
            key = f" (in the file: {directive.key})" if directive.flag and directive.key != directive.flag else ""
            lines += [".TP", f"\\fB{escaped(short + head)}\\fR{kind}", escaped(directive.help + key)]
    return "\n".join(lines) + "\n"

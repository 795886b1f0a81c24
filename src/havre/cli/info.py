"""`havre version` and `havre info`."""

from __future__ import annotations

import posix
import sys
import time

from havre import __version__
from havre.cli.parser import StatusError
from havre.client.api import API_VERSION
from havre.errors import HavreError
from havre.golang.jsontext import encode
from havre.golang.templates.gotypes import typed
from havre.golang.templates.lex import TemplateError
from havre.golang.texts import binary_size
from havre.golang.times import parse_time
from havre.visible import Drawn, for_terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from havre.cli.session import Session
    from havre.golang.flags import Options

    Json = dict[str, Any]

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "i686": "386", "armv7l": "arm"}


def _print(form: str, value: Json, type_name: str, template_name: str = "") -> None:
    """Print `value` as JSON or through a template. Raises StatusError for an invalid template."""
    if form == "json":
        sys.stdout.write(encode(value, escape_html=True) + "\n")
        return
    from havre.golang.templates.template import compile_template

    try:
        template = compile_template(form, template_name)
    except TemplateError as error:
        raise StatusError(64, f"template parsing error: {error}") from error
    try:
        text = template.execute(typed(value, type_name=type_name), shown=for_terminal())
        sys.stdout.write(Drawn(text + "\n"))
    except TemplateError as error:
        sys.stdout.write("\n")
        raise StatusError(1, str(error)) from error


def version(session: Session, options: Options, arguments: list[str]) -> int:
    """Show the versions of client and server."""
    system = posix.uname()
    machine = _ARCHITECTURES.get(system.machine, system.machine)
    client: Json = {
        "Version": __version__,
        "ApiVersion": API_VERSION,
        "DefaultAPIVersion": API_VERSION,
        "GitCommit": "",
        "GoVersion": "",
        "Os": system.sysname.lower(),
        "Arch": machine,
        "BuildTime": "",
        "Context": session.context,
        "PythonVersion": sys.version.split()[0],
    }
    failure: HavreError | None = None
    server: Json | None = None
    try:
        client["ApiVersion"] = session.client.version
        server = session.client.get("/version")
    except HavreError as error:
        failure = error
    try:
        if options.format:
            _print(options.format, {"Client": client, "Server": server}, "system.versionInfo", "version")
        else:
            sys.stdout.write(_client_text(client) + (_server_text(server) if server else ""))
    finally:
        if failure is not None:  # more informative than a template error about the missing server
            raise failure
    return 0


def _client_text(client: Json) -> str:
    default = client["DefaultAPIVersion"]
    lowered = f" (downgraded from {default})" if client["ApiVersion"] != default else ""
    return (
        "Client:\n"
        f" Version:           {client['Version']}\n"
        f" API version:       {client['ApiVersion']}{lowered}\n"
        f" Python version:    {client['PythonVersion']}\n"
        f" OS/Arch:           {client['Os']}/{client['Arch']}\n"
        f" Context:           {client['Context']}\n"
    )


def _server_text(server: Json) -> str:
    platform = (server.get("Platform") or {}).get("Name", "")
    text = f"\nServer: {platform}".rstrip() + "\n"
    components = server.get("Components") or [{"Name": "Engine", "Version": server["Version"], "Details": server}]
    for component in components:
        details = component.get("Details") or {}
        text += f" {component['Name']}:\n  Version:          {component['Version']}\n"
        if component["Name"] == "Engine":
            text += _engine_text(details)
        else:
            text += "".join(f"  {key + ':':<17} {value}\n" for key, value in sorted(details.items()))
    return text


def _engine_text(details: Json) -> str:
    least = details.get("MinAPIVersion")
    rows = [
        ("API version", f"{details.get('ApiVersion', '')}" + (f" (minimum version {least})" if least else "")),
        ("Go version", details.get("GoVersion", "")),
        ("Git commit", details.get("GitCommit", "")),
        ("Built", _build_time(details.get("BuildTime", ""))),
        ("OS/Arch", f"{details.get('Os', '')}/{details.get('Arch', '')}"),
        ("Experimental", str(details.get("Experimental", "false")).lower()),
    ]
    return "".join(f"  {name + ':':<17} {value}\n" for name, value in rows)


def _build_time(text: str) -> str:
    """An RFC 3339 time as `Thu Aug 13 05:35:48 2026`; anything else unchanged."""
    try:
        seconds, _ = parse_time(text)
    except ValueError:
        return text
    return time.strftime("%a %b %e %H:%M:%S %Y", time.gmtime(seconds))


def info(session: Session, options: Options, arguments: list[str]) -> int:
    """Show system-wide information."""
    client: Json = {
        "Debug": bool(session.options.debug),
        "Version": __version__,
        "Context": session.context,
        "Plugins": [],
        "Warnings": None,
    }
    if options.format:
        _print(options.format, {**session.client.get("/info"), "ClientInfo": client}, "system.dockerInfo")
        return 0
    debug = "true" if client["Debug"] else "false"
    sys.stdout.write(f"Client:\n Version:    {__version__}\n Context:    {session.context}\n Debug Mode: {debug}\n\n")
    sys.stdout.write("Server:\n")
    try:
        server: Json = session.client.get("/info")
    except HavreError as error:
        sys.stdout.flush()
        raise StatusError(1, f"{error.message}\nerrors pretty printing info") from error
    sys.stdout.write("".join(line + "\n" for line in _info_lines(server)))
    for warning in server.get("Warnings") or []:
        session.warn(warning)
    return 0


def _info_lines(server: Json) -> list[str]:
    lines = [
        f" Containers: {server['Containers']}",
        f"  Running: {server['ContainersRunning']}",
        f"  Paused: {server['ContainersPaused']}",
        f"  Stopped: {server['ContainersStopped']}",
        f" Images: {server['Images']}",
    ]
    lines += _named(server, "Server Version", "ServerVersion")
    lines.append(f" Storage Driver: {server['Driver']}")
    lines += [f"  {name}: {value}" for name, value in server.get("DriverStatus") or []]
    for name, key in (("Logging Driver", "LoggingDriver"), ("Cgroup Driver", "CgroupDriver"),
                      ("Cgroup Version", "CgroupVersion")):  # fmt: skip
        lines += _named(server, name, key)
    plugins = server.get("Plugins") or {}
    lines.append(" Plugins:")
    lines += [f"  {name}: {' '.join(plugins.get(name) or [])}" for name in ("Volume", "Network")]
    if plugins.get("Authorization"):
        lines.append(f"  Authorization: {' '.join(plugins['Authorization'])}")
    lines.append(f"  Log: {' '.join(plugins.get('Log') or [])}")
    if server.get("CDISpecDirs"):
        lines += [" CDI spec directories:", *(f"  {directory}" for directory in server["CDISpecDirs"])]
    lines.append(f" Swarm: {(server.get('Swarm') or {}).get('LocalNodeState', 'inactive')}")
    return lines + _runtime_lines(server) + _host_lines(server)


def _named(server: Json, name: str, key: str) -> list[str]:
    return [f" {name}: {server[key]}"] if server.get(key) else []


def _runtime_lines(server: Json) -> list[str]:
    lines = []
    if server.get("Runtimes"):
        lines.append(" Runtimes: " + " ".join(sorted(server["Runtimes"])))
        lines.append(f" Default Runtime: {server.get('DefaultRuntime', '')}")
        lines += _named(server, " Reason", "DefaultRuntimeReason")
    lines.append(f" Init Binary: {server.get('InitBinary', '')}")
    for name in ("containerd", "runc", "init"):
        commit = server.get(f"{name[0].upper()}{name[1:]}Commit") or {}
        lines.append(f" {name} version: {commit.get('ID', '')}")
    if server.get("SecurityOptions"):
        lines.append(" Security Options:")
        for option in server["SecurityOptions"]:
            pairs = [part.partition("=")[::2] for part in option.split(",")]
            lines += [f"  {value}" if key == "name" else f"   {key.title()}: {value}" for key, value in pairs]
    return lines


def _host_lines(server: Json) -> list[str]:
    lines = []
    for name, key in (("Kernel Version", "KernelVersion"), ("Operating System", "OperatingSystem"),
                      ("OSType", "OSType"), ("Architecture", "Architecture")):  # fmt: skip
        lines += _named(server, name, key)
    lines.append(f" CPUs: {server['NCPU']}")
    lines.append(f" Total Memory: {binary_size(server['MemTotal'])}")
    lines += _named(server, "Name", "Name") + _named(server, "ID", "ID")
    lines.append(f" Docker Root Dir: {server['DockerRootDir']}")
    lines.append(f" Debug Mode: {_bool(server.get('Debug'))}")
    for name, key in (("HTTP Proxy", "HttpProxy"), ("HTTPS Proxy", "HttpsProxy"), ("No Proxy", "NoProxy")):
        lines += _named(server, name, key)
    if server.get("Labels"):
        lines += [" Labels:", *(f"  {label}" for label in server["Labels"])]
    lines.append(f" Experimental: {_bool(server.get('ExperimentalBuild'))}")
    registries = server.get("RegistryConfig") or {}
    indexes = [name for name, index in (registries.get("IndexConfigs") or {}).items() if not index["Secure"]]
    networks = registries.get("InsecureRegistryCIDRs") or []
    if indexes or networks:
        lines += [" Insecure Registries:", *(f"  {name}" for name in [*indexes, *networks])]
    if registries.get("Mirrors"):
        lines += [" Registry Mirrors:", *(f"  {mirror}" for mirror in registries["Mirrors"])]
    lines.append(f" Live Restore Enabled: {_bool(server.get('LiveRestoreEnabled'))}")
    pools = server.get("DefaultAddressPools") or []
    if pools:
        lines += [" Default Address Pools:", *(f"   Base: {p['Base']}, Size: {p['Size']}" for p in pools)]
    return [*lines, ""]


def _bool(value: object) -> str:
    return "true" if value else "false"

"""What services need before containers are created: the daemon's socket and providers' variables."""

from __future__ import annotations

from havre.client.auth import base64, find_auth
from havre.compose.project import in_order
from havre.compose.steps import Provide, Step
from havre.errors import Unsupported
from havre.golang.jsontext import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from havre.cli.compose.stage import Stage
    from havre.cli.session import Session
    from havre.client.config import Config
    from havre.compose.project import Project, Service

_SOCKET = "/var/run/docker.sock"
_FOLDER = "/run/secrets/docker"
_CONFIG = "#apisocket"
"""The config with the credentials; no Compose file can define this name."""


def supplied(stage: Stage, project: Project, *, providers: bool = True) -> Project:
    """The project to create containers of: with the socket in services with `use_api_socket`, and, after the commands
    of providers, with their variables in dependent services and without their own. Raises HavreError.

    A project that was supplied is returned as it is.
    """
    _refuse_models(project)
    project = _with_sockets(stage.session, project)
    names = [name for name in in_order(project) if "provider" in project.services[name]]
    for name in names if providers else ():
        action = Provide(project, name, "up", {})
        stage.carry_out([Step(f"up provider {name}", f"Service {name}", "Creating", "Created", action)])
        for variable in action.variables:
            for other, service in sorted(project.services.items()):
                known = service.get("environment", {}).get(variable, action.variables[variable])
                if name in service.get("depends_on", {}) and known != action.variables[variable]:
                    text = f'provider "{name}" overrides environment variable "{variable}" in service "{other}"'
                    stage.session.warn(f"warning: {text}")
        project = _with_variables(project, name, action.variables)
    kept = {name: service for name, service in project.services.items() if name not in names}
    others = {name: project.services[name] for name in names}
    return project._replace(services=kept, disabled={**project.disabled, **others}) if names else project


def _with_variables(project: Project, provider: str, variables: dict[str, str]) -> Project:
    """The project in which services that depend on the provider have its variables."""
    services = {
        name: {**service, "environment": {**service.get("environment", {}), **variables}}
        if provider in service.get("depends_on", {})
        else service
        for name, service in project.services.items()
    }
    return project._replace(services=services)


def _refuse_models(project: Project) -> None:
    for name, service in sorted(project.services.items()):
        if models := service.get("models"):
            raise Unsupported(
                f'service "{name}" uses the model "{next(iter(models))}": havre has no model runner',
                "run a model server as a service, and name its address in environment",
            )


def _with_sockets(session: Session, project: Project) -> Project:
    """The daemon's socket and the registries' credentials, in docker compose's terms, for equal hashes."""
    wanted = {name for name, service in project.services.items() if service.get("use_api_socket")}
    if not wanted or _CONFIG in project.configs:
        return project
    endpoint = session.endpoint()
    socket = endpoint.address if endpoint.scheme == "unix" else _SOCKET
    services = {name: _with_socket(s, socket) if name in wanted else s for name, s in project.services.items()}
    configs = {**project.configs, _CONFIG: {"name": _CONFIG, "content": _credentials(session.config)}}
    return project._replace(services=services, configs=configs)


def _with_socket(service: Service, socket: str) -> Service:
    return {
        **service,
        "volumes": [*service.get("volumes", ()), {"type": "bind", "source": socket, "target": _SOCKET}],
        "environment": {"DOCKER_CONFIG": _FOLDER, **service.get("environment", {})},
        "configs": [*service.get("configs", ()), {"source": _CONFIG, "target": f"{_FOLDER}/config.json"}],
    }


def _credentials(config: Config) -> str:
    """A config.json with the credentials of all registries. Raises Failed as `find_auth` does."""
    entries = {server: _entry(find_auth(config, server)) for server in config.values.get("auths") or {}}
    return encode({"auths": entries}, indent="\t")


def _entry(auth: dict[str, str]) -> dict[str, str]:
    entry: dict[str, str] = {key: auth[key] for key in ("identitytoken", "registrytoken") if key in auth}
    if "username" in auth:
        entry["auth"] = base64(f"{auth['username']}:{auth.get('password', '')}".encode())
    return entry

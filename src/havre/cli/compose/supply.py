"""What services get from this client before they are created: the daemon's socket. Models are refused."""

from __future__ import annotations

from havre.client.auth import base64, find_auth
from havre.errors import Unsupported
from havre.golang.jsontext import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from havre.cli.session import Session
    from havre.client.config import Config
    from havre.compose.project import Project, Service

_SOCKET = "/var/run/docker.sock"
_FOLDER = "/run/secrets/docker"
_CONFIG = "#apisocket"
"""The config with the credentials; no Compose file can define this name."""


def supplied(session: Session, project: Project) -> Project:
    """The project with the daemon's socket and the registries' credentials in services with `use_api_socket`, in docker
    compose's terms, for equal hashes. Raises Unsupported for models.
    """
    for name, service in sorted(project.services.items()):
        if models := service.get("models"):
            raise Unsupported(
                f'service "{name}" uses the model "{next(iter(models))}": havre has no model runner',
                "run a model server as a service, and name its address in environment",
            )
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

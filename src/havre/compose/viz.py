"""The graph of a project's services in the DOT language: what depends on what, and with what else each is connected."""

from __future__ import annotations

from havre.client.jsontext import encode
from havre.compose.project import Project, image_of


def render_dot(project: Project, *, image: bool, networks: bool, ports: bool, indent: str) -> str:
    """The text of the graph, an edge from each service to what it depends on."""
    lines = [f"digraph {encode(project.name)} {{", f'{indent}layout="dot";']
    for name in sorted(project.services):
        service = project.services[name]
        rows = [name]
        if image:
            rows.append(image_of(service, name, project.name))
        if networks:
            rows += [f"network {key}" for key in sorted(service.get("networks") or {})]
        if ports:
            rows += [f"{p.get('published', '')}:{p['target']}/{p['protocol']}" for p in service.get("ports", ())]
        lines.append(f"{indent}{encode(name)} [shape=box, label={encode(chr(10).join(rows))}];")
        for other, how in sorted(service.get("depends_on", {}).items()):
            style = "solid" if how.get("required", True) else "dashed"
            condition = how["condition"].removeprefix("service_")
            lines.append(f"{indent}{encode(name)} -> {encode(other)} [style={style}, label={encode(condition)}];")
    return "\n".join([*lines, "}"]) + "\n"

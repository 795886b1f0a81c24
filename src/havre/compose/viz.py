"""The dependency graph of a project's services, in the DOT language or as SVG.

The SVG has a row of boxes for each level of dependencies: services without dependencies are at the bottom.
"""

from __future__ import annotations

from html import escape

from havre.compose.project import Project, image_of, in_order
from havre.golang.jsontext import encode

_WIDTH, _LINE, _PAD = 220, 16, 40
"""In pixels: a box's width, the height of a line of text, and the space around boxes."""


def render_dot(project: Project, *, image: bool, networks: bool, ports: bool, indent: str) -> str:
    """The graph in DOT, with an edge from each service to its dependencies."""
    lines = [f"digraph {encode(project.name)} {{", f'{indent}layout="dot";']
    for name in sorted(project.services):
        service = project.services[name]
        rows = _rows(project, name, image=image, networks=networks, ports=ports)
        lines.append(f"{indent}{encode(name)} [shape=box, label={encode(chr(10).join(rows))}];")
        for other, how in sorted(service.get("depends_on", {}).items()):
            style = "solid" if how.get("required", True) else "dashed"
            condition = how["condition"].removeprefix("service_")
            lines.append(f"{indent}{encode(name)} -> {encode(other)} [style={style}, label={encode(condition)}];")
    return "\n".join([*lines, "}"]) + "\n"


def _rows(project: Project, name: str, *, image: bool, networks: bool, ports: bool) -> list[str]:
    """The lines in a service's box."""
    service = project.services[name]
    rows = [name]
    if image:
        rows.append(image_of(service, name, project.name))
    if networks:
        rows += [f"network {key}" for key in sorted(service.get("networks") or {})]
    if ports:
        rows += [f"{p.get('published', '')}:{p['target']}/{p['protocol']}" for p in service.get("ports", ())]
    return rows


def render_svg(project: Project, *, image: bool, networks: bool, ports: bool) -> str:
    """The graph as a standalone SVG 1.1 image; a dashed line is an optional dependency."""
    rows = {n: _rows(project, n, image=image, networks=networks, ports=ports) for n in project.services}
    height = max((len(lines) for lines in rows.values()), default=0) * _LINE + _LINE
    places = _places(project, height + _PAD)
    right = max((x for x, _ in places.values()), default=0) + _WIDTH + _PAD
    bottom = max((y for _, y in places.values()), default=0) + height + _PAD
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{right}" height="{bottom}" font-family="monospace"'
    text = f'{head} font-size="12">\n<rect width="100%" height="100%" fill="white"/>\n'
    for name, (x, y) in places.items():
        for other, how in sorted(project.services[name].get("depends_on", {}).items()):
            if other in places:
                to_x, to_y = places[other]
                dash = "" if how.get("required", True) else ' stroke-dasharray="4"'
                line = f'x1="{x + _WIDTH // 2}" y1="{y + height}" x2="{to_x + _WIDTH // 2}" y2="{to_y}"'
                text += f'<line {line} stroke="black"{dash}/>\n'
    return text + "".join(_box(rows[name], x, y, height) for name, (x, y) in places.items()) + "</svg>\n"


def _places(project: Project, step: int) -> dict[str, tuple[int, int]]:
    """The position of each service's box: one row above the highest of its dependencies."""
    level: dict[str, int] = {}
    for name in in_order(project):
        below = [level[other] for other in project.services[name].get("depends_on", {}) if other in level]
        level[name] = max(below, default=-1) + 1
    top = max(level.values(), default=0)
    taken: dict[int, int] = {}
    places = {}
    for name in sorted(level):
        column = taken[level[name]] = taken.get(level[name], -1) + 1
        places[name] = (_PAD + column * (_WIDTH + _PAD), _PAD + (top - level[name]) * step)
    return places


def _box(lines: list[str], x: int, y: int, height: int) -> str:
    text = f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{height}" rx="4" fill="#dbe9f6" stroke="black"/>\n'
    for number, line in enumerate(lines, 1):
        weight = ' font-weight="bold"' if number == 1 else ""
        text += f'<text x="{x + _LINE // 2}" y="{y + number * _LINE}"{weight}>{escape(line)}</text>\n'
    return text

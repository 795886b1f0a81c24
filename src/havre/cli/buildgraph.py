"""`build --graph FILE`: draws the stages of a build as SVG, one column each, with the times of its steps.

    [build 1/2] FROM golang      a step: name, duration; grey if cached, red if failed
     |                       an arrow for each step that another stage copies from
    [build 2/2] RUN make         -->  [2/2] COPY --from=build /out /

Derived from the steps' names, which contain stage and number. Pure.
"""

from __future__ import annotations

from html import escape

from havre.cli.buildview import Step, Steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_WIDTH, _HEIGHT, _GAP, _PAD = 360, 34, 12, 24
_COLOURS = {"cached": "#e4e4e4", "done": "#d7ead2", "failed": "#f3c6c6"}


def render_svg(steps: Steps) -> str:
    """The graph as a standalone SVG 1.1 image."""
    stages = group(list(steps.by_digest.values()))
    places: dict[str, tuple[int, int]] = {}
    parts, bottom = [], _PAD
    for column, (stage, members) in enumerate(stages.items()):
        x = _PAD + column * (_WIDTH + 2 * _PAD)
        total = sum(step.seconds(0) for step in members)
        title = f"{stage or 'before'}   {total:.1f}s"
        parts.append(f'<text x="{x}" y="{_PAD}" font-weight="bold">{escape(title)}</text>\n')
        for row, step in enumerate(members):
            y = _PAD + 12 + row * (_HEIGHT + _GAP)
            parts.append(_box(step, x, y))
            bottom = max(bottom, y + _HEIGHT)
        places[stage] = (x + _WIDTH, _PAD + 12 + len(members) * (_HEIGHT + _GAP) - _GAP - _HEIGHT // 2)
    parts += _arrows(stages, places)
    width = _PAD + len(stages) * (_WIDTH + 2 * _PAD)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{bottom + _PAD}"'
    body = "".join(parts)
    sheet = '<rect width="100%" height="100%" fill="white"/>'
    return f'{head} font-family="monospace" font-size="12">\n{sheet}\n{body}</svg>\n'


def group(steps: Sequence[Step]) -> dict[str, list[Step]]:
    """The steps by the stage in their names, "" for those without one."""
    stages: dict[str, list[Step]] = {}
    for step in steps:
        stages.setdefault(stage_of(step.name), []).append(step)
    return stages


def stage_of(name: str) -> str:
    """The stage in a step's name (`[build 2/3] RUN make`); "final" for the only one, "" for `[internal] ...`.

    With the platform in a build for several platforms: `linux/arm64 build`.
    """
    inside = name[1:].partition("]")[0].split() if name.startswith("[") else []
    if not inside or "/" not in inside[-1]:
        return ""
    return " ".join(inside[:-1]) or "final"


def _box(step: Step, x: int, y: int) -> str:
    state = "failed" if step.error else "cached" if step.cached else "done"
    text = step.name.partition("] ")[2] or step.name
    shown = text if len(text) <= 46 else text[:45] + "…"
    told = "cached" if step.cached else f"{step.seconds(0):.1f}s"
    return (
        f'<g><title>{escape(step.name)}</title><rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="4" '
        f'fill="{_COLOURS[state]}" stroke="black"/><text x="{x + 8}" y="{y + 14}">{escape(shown)}</text>'
        f'<text x="{x + 8}" y="{y + 28}" fill="#555">{told}</text></g>\n'
    )


def _arrows(stages: dict[str, list[Step]], places: dict[str, tuple[int, int]]) -> list[str]:
    """Arrows from the end of each stage to every step of another that reads it."""
    arrows = []
    for column, members in enumerate(stages.values()):
        for row, step in enumerate(members):
            for source in _sources(step.name, list(stages)):
                if source != stage_of(step.name):
                    x1, y1 = places[source]
                    x2, y2 = _PAD + column * (_WIDTH + 2 * _PAD), _PAD + 12 + row * (_HEIGHT + _GAP) + _HEIGHT // 2
                    path = f"M{x1} {y1} C{x1 + 40} {y1} {x2 - 40} {y2} {x2} {y2}"
                    arrows.append(f'<path d="{path}" fill="none" stroke="#2496ed"/>\n')
    return arrows


def _sources(name: str, stages: Sequence[str]) -> list[str]:
    """The stages that a step reads, by `--from=`, `from=` and FROM."""
    words = name.partition("] ")[2].replace(",", " ").split()
    named = [word.partition("from=")[2] for word in words if "from=" in word]
    if words[:1] == ["FROM"]:
        named += words[1:2]
    first = stage_of(name).partition(" ")[0]
    platform = f"{first} " if "/" in first else ""
    candidates = [each for stage in named for each in (f"{platform}{stage}", f"{platform}stage-{stage}")]
    return [each for each in candidates if each in stages]

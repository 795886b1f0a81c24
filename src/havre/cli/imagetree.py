"""`havre image ls --tree`: each image with its names, and below it their platforms, including those not present
locally.

Source: docker/cli 28, "docker image ls --tree".
"""

from __future__ import annotations

from havre.cli.tty import DIM, OFF, has_colours, size
from havre.golang.texts import human_size, short_id
from havre.oci.names import familiar
from havre.visible import Drawn, visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_SPACE = "   "
_HEADERS = ("IMAGE", "ID", "DISK USAGE", "CONTENT SIZE", "EXTRA")
_ID_WIDTH = 12
_UNTAGGED = "<untagged>"
_LEGEND = "Info -> U In Use"


def render_tree(images: list[dict[str, Any]], inspect: Callable[[str], dict[str, Any]], *, truncate: bool) -> str:
    """The tree of rows with their manifests; where a daemon reports none, `inspect` returns an image's own platform."""
    blocks = [_block(image, inspect, truncate=truncate) for image in images]
    blocks.sort(key=lambda block: (block[0][0] == _UNTAGGED, block[0][0]))
    cells = [_HEADERS, *(line for block in blocks for line in block)]
    first = max(len(line[0]) for line in cells)
    id_width = max(_ID_WIDTH, *(len(line[1]) for line in cells if len(line) > 1))
    dim = has_colours(1)
    columns = size(1)[1]
    head = [_LEGEND.rjust(columns)] if columns else []
    head.append(_line(_HEADERS, first, id_width))
    texts = [
        "\n".join(_shade(_line(line, first, id_width), off=dim and len(line) > 5) for line in block) for block in blocks
    ]
    return Drawn("\n".join(head) + "\n" + "\n\n".join(texts) + ("\n" if texts else ""))


def _block(image: dict[str, Any], inspect: Callable[[str], dict[str, Any]], *, truncate: bool) -> list[tuple[str, ...]]:
    """The lines of an image; that of a missing platform has a sixth cell."""

    def shown(identifier: str) -> str:
        return short_id(identifier) if truncate else identifier

    manifests = image.get("Manifests") or [_own_manifest(image, inspect(image["Id"]))]
    platforms = [each for each in manifests if each["Kind"] == "image"]
    used = image.get("Containers", 0) > 0 or any(each["ImageData"]["Containers"] for each in platforms)
    content = sum(each["Size"]["Content"] for each in manifests)
    names = sorted(visible(familiar(tag)) for tag in image.get("RepoTags") or []) or [_UNTAGGED]
    sizes = (human_size(image["Size"] + content, 3), human_size(content, 3))
    lines: list[tuple[str, ...]] = [(name,) for name in names[:-1]]
    lines.append((names[-1], shown(image["Id"]), *sizes, "U" if used else ""))
    for number, each in enumerate(platforms, 1):
        branch = "└─" if number == len(platforms) else "├─"
        sizes = (human_size(each["Size"]["Total"], 3), human_size(each["Size"]["Content"], 3))
        mark = "U" if each["ImageData"]["Containers"] else ""
        missing = () if each["Available"] else ("missing",)
        name = f"{branch} {_platform_text(each['ImageData']['Platform'])}"
        lines.append((name, shown(each["ID"]), *sizes, mark, *missing))
    return lines


def _own_manifest(image: dict[str, Any], details: dict[str, Any]) -> dict[str, Any]:
    platform = {"os": details["Os"], "architecture": details["Architecture"], "variant": details.get("Variant", "")}
    return {
        "ID": image["Id"],
        "Kind": "image",
        "Available": True,
        "Size": {"Content": 0, "Total": image["Size"]},
        "ImageData": {"Platform": platform, "Containers": []},
    }


def _platform_text(platform: dict[str, str]) -> str:
    return visible("/".join(filter(None, (platform.get(key) for key in ("os", "architecture", "variant")))))


def _line(cells: tuple[str, ...], first: int, id_width: int) -> str:
    if len(cells) == 1:
        return cells[0]
    name, identifier, total, content, mark = cells[:5]
    columns = (name.ljust(first), identifier.ljust(id_width), total.rjust(10), content.rjust(12), mark)
    return _SPACE.join(columns).rstrip()


def _shade(line: str, *, off: bool) -> str:
    return f"{DIM}{line}{OFF}" if off else line

"""Questions about a Dockerfile instead of a build: the option `requestid` of BuildKit's frontend.

    frontend.lint                    the findings of the build checks     buildx build --call=check
    frontend.outline                 the parameters of the target                      --call=outline
    frontend.targets                 the stages                                        --call=targets
    frontend.subrequests.describe    this list                                         --call=subrequests.describe

Source: moby/buildkit frontend/dockerui/requests.go, frontend/subrequests.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from havre.builds.request import BuildRequest, ContextSource
from havre.builds.solve import Builder
from havre.dockerfile.outline import Report, render_rows
from havre.errors import Unsupported

DESCRIBE = "frontend.subrequests.describe"
_LINT, _OUTLINE, _TARGETS = "frontend.lint", "frontend.outline", "frontend.targets"
_VERSION = "1.0.0"
_DESCRIPTIONS: Mapping[str, str] = {
    _OUTLINE: "List all parameters current build target supports",
    _TARGETS: "List all targets current build supports",
    _LINT: "Lint a Dockerfile",
    DESCRIBE: "List available subrequest types",
}


async def answer(id: str, builder: Builder, request: BuildRequest, source: ContextSource) -> dict[str, bytes]:
    """The metadata of a subrequest's result. Raises `Unsupported` for an unknown one."""
    status = {}
    if id == _OUTLINE:
        report = await builder.outline(request, source)
    elif id == _TARGETS:
        report = await builder.targets(request, source)
    elif id == _LINT:
        found = await builder.check(request, source)
        report = Report(found.text(), found.document())
        status = {"result.statuscode": b"1" if found.failed else b"0"}
    elif id == DESCRIBE:
        report = _describe()
    else:
        raise Unsupported(f"unsupported request {id}", "leave out --print or --call")
    return {"result.json": report.document, "result.txt": report.text.encode(), "version": _VERSION.encode(), **status}


def _describe() -> Report:
    metadata = [{"name": "result.json"}, {"name": "result.txt"}]
    requests = [
        {"name": id, "version": _VERSION, "type": "rpc", "description": description, "opts": [], "metadata": metadata}
        for id, description in _DESCRIPTIONS.items()
    ]
    rows = [["NAME", "VERSION", "DESCRIPTION"]]
    rows += [[id.removeprefix("frontend."), _VERSION, description] for id, description in _DESCRIPTIONS.items()]
    return Report(render_rows(rows, 1), msgspec.json.format(msgspec.json.encode(requests), indent=2))

"""havre, dockerd and podman side by side on the same work, in turn, in one run.

Reported: the median with minimum and maximum, and how many times faster havre is (ratio of medians, and the spread of
the ratios of the rounds). Writes docs/benchmarks.md and docs/benchmarks.png.

    make bench                  everything
    bench/run.py --only run,ps --rounds 5 --dry      a few measures, printed and not written down

To add a row, write a function that takes a `Bench` into one of the modules `rows_*.py` and name it in that module's
`ROWS`.
"""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Sequence
from pathlib import Path

import rows_builds
import rows_compose
import rows_containers
import rows_growth
import rows_images
import rows_logs
import rows_networks
import rows_spine
from harness import BIG_PACKAGES, ROOT, Bench, Measure, contenders, debian_tree, run

ROWS = {
    **rows_spine.ROWS,
    **rows_images.ROWS,
    **rows_compose.ROWS,
    **rows_builds.ROWS,
    **rows_containers.ROWS,
    **rows_networks.ROWS,
    **rows_logs.ROWS,
    **rows_growth.ROWS,
}


def render(measures: Sequence[Measure]) -> str:
    """The table as Markdown."""
    names = ("havre", "dockerd", "podman")
    lines = ["| work | " + " | ".join(names) + " | dockerd / havre | podman / havre |", "| --- |" + " ---: |" * 5]
    for measure in measures:
        cells = []
        for name in names:
            values = measure.rounds.get(name)
            shown = f"{measure.median(name):,.1f} ({min(values):,.1f} to {max(values):,.1f})" if values else "none"
            cells.append(shown)
        for name in names[1:]:
            if name in measure.rounds:
                ratios = measure.ratios(name)
                median = measure.median(name) / measure.median("havre")
                cells.append(f"**{median:.1f}** ({min(ratios):.1f} to {max(ratios):.1f})")
            else:
                cells.append("none")
        lines.append(f"| {measure.title}, {measure.unit} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(measures: Sequence[Measure], path: Path) -> None:
    """A chart of the ratios: how many times more the others need."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = list(reversed(measures))
    figure, axes = pyplot.subplots(figsize=(9, 0.55 * len(rows) + 1.4))
    for offset, (name, colour) in enumerate((("podman", "#892ca0"), ("dockerd", "#2496ed"))):
        values = [m.median(name) / m.median("havre") if name in m.rounds else 0 for m in rows]
        bars = axes.barh([i + (offset - 0.5) * 0.38 for i in range(len(rows))], values, 0.36, label=name, color=colour)
        axes.bar_label(bars, [f"{value:.1f}" if value else "" for value in values], padding=3, fontsize=8)
    axes.axvline(1, color="#d1495b", linewidth=1.5, label="havre = 1")
    axes.set_yticks(range(len(rows)), [m.title.replace("`", "") for m in rows], fontsize=8)
    axes.set_xlabel("times what havre needs (more than 1: havre is better)")
    axes.set_xscale("symlog", linthresh=1)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def write(bench: Bench) -> None:
    """docs/benchmarks.md and its chart."""
    versions = [run(tool, "--version").splitlines()[0] for tool in ("dockerd", "podman", "crun", "runc")]
    size = debian_tree(BIG_PACKAGES, ()).stat().st_size / 1e6
    text = (
        "# Benchmarks\n\n"
        "Written by `make bench`; every row is measured on all engines in one run, in turn. Times are the median, with "
        "minimum and maximum; ratios are of the medians, with the spread of the rounds. havre is driven by its own "
        "command line, dockerd by docker's, podman directly.\n\n"
        f"![how many times more the others need](benchmarks.png)\n\n{render(bench.measures)}\n\n"
        f"The Debian image holds {size:,.0f} MB in one layer. {bench.rounds} rounds on {os.cpu_count()} processors, "
        f"Linux {platform.release().split('-')[0]}, Python {platform.python_version()}, {', '.join(versions)}. "
        "Podman runs on runc where crun refuses the host's cgroup layout.\n"
    )
    (ROOT / "docs" / "benchmarks.md").write_text(text)
    draw(bench.measures, ROOT / "docs" / "benchmarks.png")


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(ROWS), help="measures, separated by commas")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--dry", action="store_true", help="print, and leave docs/ as it is")
    options = parser.parse_args()
    with contenders() as (engines, registry):
        bench = Bench(engines, registry, options.rounds)
        try:
            for part in options.only.split(","):
                ROWS[part](bench)
        finally:  # an end that comes early leaves what was measured
            print(render(bench.measures))
            if not options.dry:
                write(bench)


if __name__ == "__main__":
    main()

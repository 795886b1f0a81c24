"""Lists flags for `--help` in pflag's layout, aligned and wrapped.

    --name string    Name of the container
-t, --tty            Allocate a pseudo-TTY
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from havre.golang.flags import Flag

_SLOP = 5  # columns by which the last word of a line may exceed the width, as in pflag


def render_flags(flags: Iterable[Flag], columns: int) -> str:
    """One entry per flag, sorted by name, descriptions aligned and wrapped at `columns`."""
    entries = []
    for flag in sorted(flags, key=lambda f: f.long):
        if flag.hidden:
            continue
        head = f"  -{flag.short}, --{flag.long}" if flag.short else f"      --{flag.long}"
        shown = flag.shown_default()
        entries.append((f"{head} {flag.shown_kind}".rstrip(), flag.help + (f" (default {shown})" if shown else "")))
    indent = max(len(head) for head, _ in entries) + 3
    return "\n".join(f"{head:<{indent}}{_wrap(text, indent, columns)}".rstrip() for head, text in entries)


def _wrap(text: str, indent: int, columns: int) -> str:
    room = columns - indent
    lead = ""
    if room < 24:  # too narrow beside the flag: start on the next line
        indent = 16
        room = columns - indent
        lead = "\n" + " " * indent
    newline = "\n" + " " * indent
    if room < 24:
        return lead + text.replace("\n", newline)
    lines = []
    while text:
        line, text = _cut(text, room - _SLOP)
        lines.append(line.replace("\n", newline))
    return lead + newline.join(lines)


def _cut(text: str, room: int) -> tuple[str, str]:
    """Split `text` into the part for one line of `room` columns and the rest."""
    if room + _SLOP > len(text):
        return text, ""
    head = text[:room]
    blank = max(head.rfind(" "), head.rfind("\t"), head.rfind("\n"))
    if blank <= 0:
        return text, ""
    end = head.rfind("\n")
    if 0 < end < blank:
        blank = end
    return text[:blank], text[blank + 1 :]

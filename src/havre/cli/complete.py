"""Shell completion and man pages, generated from the tables of parsing and help.

The scripts call `havre __complete WORD ...`, which prints the candidates for the last word, one per line (`cli.offers`
has those other than commands and flags). Without candidates, the shell completes file names.
"""

from __future__ import annotations

import sys

from havre.cli.main import global_flags
from havre.cli.parser import StatusError, parse
from havre.cli.tree import GROUPS, TOP, aliases, commands, find, group_options
from havre.errors import HavreError
from havre.golang.flags import Options, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from havre.cli.parser import Command
    from havre.cli.session import Session
    from havre.golang.flags import Flag

_BASH = """\
_havre() {
    # bash takes : and = for ends of words (COMP_WORDBREAKS), and replaces what follows the last of them.
    local IFS=$' \\t\\n' line=${COMP_LINE:0:COMP_POINT}
    local -a words
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    local word=${words[-1]} IFS=$'\\n'
    COMPREPLY=($(havre __complete -- "${words[@]:1}" 2>/dev/null | cut -f1))
    COMPREPLY=("${COMPREPLY[@]#"${word%"${word##*[:=]}"}"}")
    [[ ${#COMPREPLY[@]} == 1 && $COMPREPLY == *[:=/] ]] && compopt -o nospace
}
complete -o bashdefault -o default -F _havre havre
"""
_ZSH = """\
#compdef havre
_havre() {
    local -a candidates
    local lines=$(havre __complete -- "${words[@]:1:$((CURRENT - 1))}" 2>/dev/null)
    candidates=("${(@f)$(print -r -- "$lines" | sed 's/:/\\\\:/g; s/\\t/:/')}")
    _describe havre candidates || _files
}
compdef _havre havre
"""
_FISH = """\
complete -c havre -a '(havre __complete -- (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null)'
"""
_SHELLS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def completion(session: Session, options: Options, arguments: list[str]) -> int:
    """Print a completion script, or write the man pages into a directory."""
    kind, *rest = arguments
    if kind == "man":
        return _write_man_pages(rest[0] if rest else ".")
    if kind not in _SHELLS:
        raise StatusError(1, f"completion is there for bash, zsh, fish and man, not for {kind!r}")
    sys.stdout.write(_SHELLS[kind])
    return 0


def complete(session: Session, options: Options, arguments: list[str]) -> int:
    """Print candidates for the last of the words."""
    words = arguments[1:] if arguments[:1] == ["--"] else arguments
    for candidate, text in candidates(session, words or [""]):
        print(f"{candidate}\t{text}" if text else candidate)
    return 0


def candidates(session: Session, words: list[str]) -> Iterable[tuple[str, str]]:
    """The candidates for the last word, with descriptions."""
    *before, word = words
    _, rest = _parse_quietly(global_flags(), before, stop=True)
    if not rest:
        if word.startswith("-"):
            return _flags(global_flags(), word)
        return _matching([*GROUPS.items(), *_top_words()], word)
    try:
        command, _, arguments = find(rest)
    except UsageError:  # a group's flag without its value: no candidates
        return []
    if command is None:
        inner = [(c.names[0], c.summary) for c in commands(rest[0]) if not c.hidden] if rest[0] in GROUPS else []
        return _matching(inner, word)
    if word.startswith("-"):
        return _flags(command.flags, word)
    from havre.cli.offers import arguments_of, values_of

    group = TOP.get(rest[0], rest[0])
    flag = _unfinished(command.flags, arguments)
    if flag is not None:
        return _matching([(value, "") for value in values_of(session, group, command, flag, word)], word)
    session.group = group_options(rest)
    _, given = _parse_quietly(command.flags, arguments, stop=command.stop)
    offered = arguments_of(session, command, len(given), word)
    return _matching([(name, "") for name in offered if name not in given], word)


def _unfinished(flags: Sequence[Flag], words: list[str]) -> Flag | None:
    """The flag whose value is the last word."""
    last = words[-1] if words else ""
    if not last.startswith("-") or "=" in last:
        return None
    is_long = last.startswith("--")
    for flag in flags:
        named = flag.long == last[2:] if is_long else bool(flag.short) and last.endswith(flag.short)
        if named:
            return flag if flag.kind not in ("", "bool?") else None
    return None


def _parse_quietly(flags: Sequence[Flag], words: list[str], *, stop: bool) -> tuple[Options, list[str]]:
    try:
        return parse(flags, words, stop=stop)
    except HavreError:  # ignore errors in an incomplete command line
        return Options(flags), []


def _top_words() -> list[tuple[str, str]]:
    return [(c.top, c.summary) for group in (*GROUPS, "top") for c in commands(group) if c.top in TOP and not c.hidden]


def _matching(pairs: Iterable[tuple[str, str]], word: str) -> list[tuple[str, str]]:
    return [(name, text) for name, text in pairs if name.startswith(word)]


def _flags(flags: Sequence[Flag], word: str) -> list[tuple[str, str]]:
    names = [(f"--{flag.long}", flag.help.partition("\n")[0]) for flag in flags if not flag.hidden]
    return _matching(names, word)


def _write_man_pages(directory: str) -> int:
    with open(f"{directory}/havre.1", "w", encoding="utf-8") as file:
        file.write(program_page())
    for group in (*GROUPS, "top"):
        for command in commands(group):
            if command.hidden:
                continue
            for path in aliases(group, command):
                name = "havre-" + path.replace(" ", "-")
                with open(f"{directory}/{name}.1", "w", encoding="utf-8") as file:
                    file.write(man_page(path, command))
    return 0


def program_page() -> str:
    """The program's man page, which refers to those of its commands."""
    lines = ['.TH "HAVRE" 1 "" havre "havre manual"', ".SH NAME", "havre \\- a container engine with Docker's commands"]
    lines += [".SH SYNOPSIS", ".B havre", "[OPTIONS] COMMAND", ".SH DESCRIPTION"]
    lines.append("Each command has a page of its own, such as havre\\-run(1); the daemon is havred(8).")
    for group in ("top", *GROUPS):
        shown = [command for command in commands(group) if not command.hidden]
        lines += [f".SH {'COMMANDS' if group == 'top' else 'HAVRE ' + group.upper()}"]
        if group != "top":
            lines.append(_roff(GROUPS[group]))
        for command in shown:
            path = command.names[0] if group == "top" else f"{group} {command.names[0]}"
            lines += [".TP", f".B havre {_roff(path)}", _roff(command.summary)]
    return "\n".join(lines) + "\n"


def man_page(path: str, command: Command) -> str:
    """The man page of a command, in roff."""
    name = f"havre-{path.replace(' ', '-')}"
    lines = [f'.TH "{name.upper()}" 1 "" havre "havre manual"', ".SH NAME"]
    lines += [f"{_roff(name)} \\- {_roff(command.summary)}", ".SH SYNOPSIS"]
    for usage in command.usage.split("\n"):
        lines += [f".B havre {_roff(path)}", _roff(usage), ".br"]
    lines += [".SH DESCRIPTION", _roff(command.long or command.summary)]
    shown = sorted((flag for flag in command.flags if not flag.hidden), key=lambda flag: flag.long)
    if shown:
        lines.append(".SH OPTIONS")
    for flag in shown:
        head = (f"-{flag.short}, " if flag.short else "") + f"--{flag.long}"
        default = flag.shown_default()
        text = flag.help + (f" (default {default})" if default else "")
        lines += [".TP", f"\\fB{_roff(head)}\\fR \\fI{_roff(flag.shown_kind)}\\fR", _roff(text)]
    return "\n".join(lines) + "\n"


def _roff(text: str) -> str:
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return "\n".join("\\&" + line if line[:1] in (".", "'") else line for line in escaped.split("\n"))

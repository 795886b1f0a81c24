"""Attributes of a log's container and tags. What is expected was answered by dockerd 26.1."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import tracemalloc
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from havre.errors import InvalidInput
from havre.golang.templates import template
from havre.golang.templates.functions import FUNCTIONS
from havre.logs import subject as subjects
from havre.logs.subject import Subject, plan_attrs, render_tag

SUBJECT = Subject(
    id="0123456789abcdef",
    name="web-1",
    image_id="sha256:feedbeef",
    image_name="nginx:1",
    entrypoint="echo",
    args=("x", "y"),
    created="2026-11-27T17:19:53.12218790Z",
    labels={"a": "1", "ab": "2", "c": "3"},
    env={"A": "x", "B": "y"},
)
OPTIONS = {"tag": "t", "labels": "a"}


def test_attributes() -> None:
    options = {"labels": "c,none", "labels-regex": "^a", "env": "A", "env-regex": "^B$"}
    assert plan_attrs(options, SUBJECT) == {"a": "1", "ab": "2", "c": "3", "A": "x", "B": "y"}


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("(?i)A", "a ab"),
        (r"\pL{2}", "ab"),
        (r"^[[:alpha:]]\z", "a c"),
        (r"\Qa", "a ab"),
        ("(?P<n>b)|(?:c)$", "ab c"),
        (r"\x63|\bab\b", "ab c"),
        ("b{,2}", ""),
    ],
)
def test_patterns_have_gos_syntax(pattern: str, names: str) -> None:
    assert " ".join(plan_attrs({"labels-regex": pattern}, SUBJECT)) == names


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("(", "missing closing ): `(`"),
        ("[", "missing closing ]: `[`"),
        ("*", "missing argument to repetition operator: `*`"),
        ("a**", "invalid nested repetition operator: `**`"),
        ("(?=a)", "invalid or unsupported Perl syntax: `(?=`"),
        (r"(a)\1", r"invalid escape sequence: `\1`"),
        ("[b-a]", "invalid character class range: `b-a`"),
        ("a{1001}", "invalid repeat count: `{1001}`"),
        ("((a{100}){100}){100}", "invalid repeat count: `{100}`"),
        ("(?P<n", "invalid named capture: `(?P<n`"),
        ("\\", "trailing backslash at end of expression: ``"),
    ],
)
def test_patterns_are_refused_in_dockerds_words(pattern: str, words: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        plan_attrs({"env-regex": pattern}, SUBJECT)
    assert refused.value.message.endswith(f"failed to initialize logging driver: error parsing regexp: {words}")


@pytest.mark.parametrize("pattern", [r"\pL{1000}", "(x{0,100}y{0,10})" * 900, "x" * 20000])
def test_patterns_that_cost_too_much_are_refused(pattern: str) -> None:
    with pytest.raises(InvalidInput, match=r"expression too large|has 20000 characters"):
        plan_attrs({"env-regex": pattern}, SUBJECT)


def test_patterns_do_not_backtrack() -> None:
    """A backtracking matcher would take 2 to the power of 5000 steps."""
    labels = {"a" * 5000 + "!": "1"}
    hostile = Subject(id="0", name="n", image_id="i", image_name="i", labels=labels, env={})
    assert plan_attrs({"labels-regex": r"^(a|a)*$|^(a+)+$"}, hostile) == {}
    assert plan_attrs({"labels-regex": r"^(a|a)*!$"}, hostile) == labels


@pytest.mark.parametrize(
    ("template", "tag"),
    [
        ("{{.ID}}", "0123456789ab"),
        ("plain", "plain"),
        ("{{.Name}}/{{ .FullID}}/{{.ImageName}}/{{.DaemonName}}", "web-1/0123456789abcdef/nginx:1/docker"),
        ("{{.ContainerImageID}}|{{.ImageID}}|{{.ContainerName}}", "sha256:feedbeef|sha256:feedb|/web-1"),
        ("{{.ImageName | upper}}", "NGINX:1"),
        ('{{ printf "%.5s" .ID }}', "01234"),
        ("{{ if .ImageName }}i{{else}}n{{end}}", "i"),
        ("{{slice .FullID 0 4}}{{truncate .FullID 3}}{{pad .ID 1 2}}x", "0123012 0123456789ab  x"),
        ("{{.ContainerCreated}}", "2026-11-27 17:19:53.1221879 +0000 UTC"),
        ("{{.ContainerEnv}} {{.ContainerLabels}} {{.Config}}", "[A=x B=y] map[a:1 ab:2 c:3] map[labels:a tag:t]"),
        ("{{.ContainerEntrypoint}}|{{.ContainerArgs}}|{{.Command}}", "echo|[x y]|echo x y"),
        ('{{index .ContainerLabels "a"}}{{.ContainerLabels.c}}{{.ContainerLabels.B}}', "13<no value>"),
        ("{{range .ContainerEnv}}<{{.}}>{{end}}{{join .ContainerArgs `-`}}", "<A=x><B=y>x-y"),
        ("{{.ExtraAttributes nil}}{{.LogPath}}", "map[a:1]/log"),
        ('{{title .Name}}{{split .Name "-"}}', "Web-1[web 1]"),
        ('{{printf "%T" .}}', "*logger.Info"),
        ('{{printf "%c" 99999999999}}', "�"),
    ],
)  # fmt: skip
def test_tags(template: str, tag: str) -> None:
    assert render_tag(template, SUBJECT, OPTIONS, "/log") == tag


def test_a_tag_of_everything() -> None:
    assert json.loads(render_tag("{{json .}}", SUBJECT, OPTIONS, "/log")) == {
        "Config": OPTIONS,
        "ContainerID": "0123456789abcdef",
        "ContainerName": "/web-1",
        "ContainerEntrypoint": "echo",
        "ContainerArgs": ["x", "y"],
        "ContainerImageID": "sha256:feedbeef",
        "ContainerImageName": "nginx:1",
        "ContainerCreated": "2026-11-27T17:19:53.12218790Z",
        "ContainerEnv": ["A=x", "B=y"],
        "ContainerLabels": SUBJECT.labels,
        "LogPath": "/log",
        "DaemonName": "docker",
    }


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{.Odd}}", 'log-tag:1:2: executing "log-tag" at <.Odd>: can\'t evaluate field Odd in type *logger.Info'),
        ("{{upper}}", 'log-tag:1:2: executing "log-tag" at <upper>: wrong number of args for upper: want 1 got 0'),
        ("{{foo}}", 'log-tag:1: function "foo" not defined'),
        ("{{.ID", "log-tag:1: unclosed action"),
        ("{{end}}", "log-tag:1: unexpected {{end}}"),
        ("{{.ID.X}}", 'log-tag:1:5: executing "log-tag" at <.ID.X>: can\'t evaluate field X in type string'),
        ('{{.Name "a"}}', 'log-tag:1:2: executing "log-tag" at <.Name>: wrong number of args for Name: want 0 got 1'),
        (
            "{{.ExtraAttributes}}",
            'log-tag:1:2: executing "log-tag" at <.ExtraAttributes>: '
            "wrong number of args for ExtraAttributes: want 1 got 0",
        ),
        ('{{printf "%d" 99999999999999999999}}', 'log-tag:1: integer overflow: "99999999999999999999"'),
        (
            '{{pad "a" 3 -1}}',
            'log-tag:1:2: executing "log-tag" at <pad "a" 3 -1>: error calling pad: strings: negative Repeat count',
        ),
    ],
)
def test_tags_are_refused_in_dockerds_words(template: str, words: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        render_tag(template, SUBJECT, {})
    assert refused.value.message.endswith(f"failed to initialize logging driver: template: {words}")


ENDLESS = [
    '{{$a := "xxxxxxxx"}}' + '{{$a = printf "%s%s" $a $a}}' * 60 + "{{$a}}",
    '{{$a := "xxxxxxxx"}}' + "{{$a = print $a $a $a $a}}" * 60,
    '{{$l := split (pad "" 0 0 | printf "%9000s") ""}}' + "{{range $l}}" * 9 + "x" + "{{end}}" * 9,
    '{{$l := split (printf "%999s" "") ""}}' + "{{range $l}}" * 9 + "{{end}}" * 9,
    '{{pad "a" 999999999999 1}}',
    '{{printf "%999999999999s" "a"}}',
    '{{printf "' + "%9999999s" * 99 + '"' + ' "a"' * 99 + "}}",
    '{{$s := printf "%99999s" ""}}{{join (split $s "") $s}}',
    '{{printf "%99999999999.3f" 1.5}}',
    "{{" + "(" * 5000 + ".ID" + ")" * 5000 + "}}",
    "{{" + "(len " * 1500 + ".ID" + ")" * 1500 + "}}",
    "{{if 1}}" * 1000 + "{{end}}" * 1000,
    "{{if 0}}" + "{{else if 0}}" * 1000 + "{{end}}",
    "x" * 20000,
    '{{range split (printf "%999s" "") ""}}' + "y" * 9000 + "{{end}}",
]


@pytest.mark.parametrize("template", ENDLESS, ids=map(str, range(len(ENDLESS))))
def test_tags_that_would_never_end_are_refused(template: str) -> None:
    with pytest.raises(InvalidInput):
        render_tag(template, SUBJECT, {})


MANY = dataclasses.replace(SUBJECT, labels={f"{number:01000}": "x" * 1000 for number in range(300)})
TWICE = "{{range .ContainerLabels}}{{range $.ContainerLabels}}%s{{end}}{{end}}"


@pytest.mark.parametrize("step", ["{{$x := $.ExtraAttributes $}}", "{{$x := and" + " $" * 500 + "}}", ""])
def test_every_step_of_a_tag_is_paid_for(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what makes no text: a row's methods, operands, turns of loops. Attributes are matched once."""
    matched, tried = Counter[str](), Counter[bool]()
    monkeypatch.setattr(subjects, "_matcher", lambda _: lambda name: matched.update([name]) is None)
    monkeypatch.setattr(template, "truth", lambda value: tried.update([True]) is None and bool(value))
    with pytest.raises(InvalidInput, match="too many steps"):
        render_tag(TWICE % step, MANY, {"labels-regex": ".*"})
    assert max(matched.values(), default=0) <= 1
    assert tried[True] < 20_000


@pytest.mark.parametrize("call", ["print", "println", 'printf ""'])
def test_one_call_does_not_fill_the_memory(call: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInput, match="too long"):
            render_tag("{{" + call + " $" * 500 + "}}", MANY, {})
        assert tracemalloc.get_traced_memory()[1] < 200 << 20
    finally:
        tracemalloc.stop()


FIELDS = (
    ".",
    ".ID",
    ".Config",
    ".ContainerEnv",
    ".ExtraAttributes",
    "$x",
    '"%99d%q"',
    "1",
    "99999999",
    "-1",
    "'c'",
    "2.5",
)
WORDS = (":=", "=", "|", "(", ")", "nil", "if", "else", "end", "range", "with")
PIECES = sorted({*FIELDS, *WORDS, *FUNCTIONS})
ACTIONS = st.lists(st.sampled_from(PIECES), min_size=1, max_size=6).map(lambda words: "{{" + " ".join(words) + "}}")


@settings(max_examples=300, deadline=None)
@given(st.lists(ACTIONS, max_size=5).map("".join))
def test_any_tag_is_rendered_or_refused(template: str) -> None:
    with contextlib.suppress(InvalidInput):
        assert isinstance(render_tag(template, SUBJECT, {}), str)

"""Go templates: what they print, and how their errors are worded."""

from __future__ import annotations

from typing import Any

import pytest

from havre.golang.templates.gotypes import typed
from havre.golang.templates.lex import TemplateError
from havre.golang.templates.template import compile_template

VALUE = typed(
    {
        "Id": "sha256:abc",
        "Name": "web",
        "Count": 3,
        "Ratio": 0.5,
        "On": True,
        "Config": {"Cmd": ["sh", "-c", "x y"], "Labels": {"b": "2", "a": "1"}, "Env": None, "User": ""},
        "NetworkSettings": {"Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "90/tcp": None}},
        "Nothing": None,
    }
)


def run(text: str, value: Any = VALUE) -> str:
    return compile_template(text).execute(value)


@pytest.mark.parametrize(
    ("template", "output"),
    [
        ("plain", "plain"),
        ("{{.Name}} {{.Count}} {{.Ratio}} {{.On}}", "web 3 0.5 true"),
        ("{{.ID}}", "sha256:abc"),
        ("{{ .Config.Cmd }}", "[sh -c x y]"),
        ("{{.Config.Labels}}", "map[a:1 b:2]"),
        ("{{.Config.Env}}|{{.Nothing}}", "[]|<nil>"),
        ("{{.NetworkSettings.Ports}}", "map[80/tcp:[{0.0.0.0 8080}] 90/tcp:<nil>]"),
        ("{{json .Config.Cmd}}", '["sh","-c","x y"]'),
        ("{{.Config.Labels | json}}", '{"b":"2","a":"1"}'),
        ('{{index .Config.Labels "a"}}{{index .Config.Labels "zz"}}', "1"),
        ('{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}', "8080"),
        ("{{range .Config.Cmd}}[{{.}}]{{end}}", "[sh][-c][x y]"),
        ("{{range $i, $v := .Config.Cmd}}{{$i}}={{$v}};{{end}}", "0=sh;1=-c;2=x y;"),
        ("{{range $k, $v := .Config.Labels}}{{$k}}{{$v}}{{end}}", "a1b2"),
        ("{{range .Config.Env}}x{{else}}none{{end}}", "none"),
        ("{{range .Config.Cmd}}{{if eq . \"-c\"}}{{continue}}{{end}}{{.}},{{end}}", "sh,x y,"),
        ("{{range .Config.Cmd}}{{.}}{{break}}{{end}}", "sh"),
        ("{{if .Config.User}}yes{{else if .On}}on{{else}}no{{end}}", "on"),
        ("{{if and .On (gt .Count 2)}}A{{end}}{{if or .Config.User .Name}}B{{end}}{{if not .Nothing}}C{{end}}", "ABC"),
        ("{{with .Config}}{{len .Cmd}}{{$.Name}}{{end}}", "3web"),
        ("{{with $x := .Name}}{{$x}}{{end}}{{with .Nothing}}{{else}}-{{end}}", "web-"),
        ("{{$x := 1}}{{if .On}}{{$x = 2}}{{end}}{{$x}}", "2"),
        ("a {{- .Name -}} b", "awebb"),
        ("a{{/* note */}}b", "ab"),
        ('{{printf "%s-%05d-%q-%v-%5.2f" .Name .Count .Name .On .Ratio}}', 'web-00003-"web"-true- 0.50'),
        ('{{printf "%-5s|%5s" .Name .Name}}', "web  |  web"),
        ('{{printf "%d" .Name}}', "%!d(string=web)"),
        ('{{printf "%s"}}', "%!s(MISSING)"),
        ('{{print 1 2 "a" "b" 3}}', "1 2a b3".replace("a b", "ab")),
        ('{{println "x"}}', "x\n"),
        ('{{join .Config.Cmd ","}}', "sh,-c,x y"),
        ('{{split "a.b" "."}}', "[a b]"),
        ('{{upper "a"}}{{lower "A"}}{{title "ab cd"}}', "AaAb Cd"),
        ('{{pad "x" 1 2}}|{{truncate "abcdef" 3}}|{{truncate "a" 3}}', " x  |abc|a"),
        ('{{slice "abcdef" 1 3}}{{html "<a>"}}{{urlquery "a b&"}}', "bc&lt;a&gt;a+b%26"),
        ("{{eq .Count 1 2 3}}{{ne .Name `x`}}{{le 1 1}}{{lt `a` `b`}}{{ge 1.5 1.0}}", "truetruetruetruetrue"),
        (r'{{"é\tA\x41\""}}', 'é\tAA"'),
        ("{{'a'}} {{0x10}} {{1_000}} {{-3}} {{1e3}}", "97 16 1000 -3 1000"),
        ("{{1.0}}{{true}}", "1true"),
        ("{{.Config.Labels.a}}", "1"),
    ],
)  # fmt: skip
def test_output(template: str, output: str) -> None:
    assert run(template) == output


def test_and_and_or_stop_early() -> None:
    assert run("{{or .On (index .Config.Cmd 99)}}{{and false (index .Config.Cmd 99)}}") == "truefalse"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{.Name", "template: :1: unclosed action"),
        ("\n{{if .On}}", "template: :2: unexpected EOF"),
        ("{{end}}", "template: :1: unexpected {{end}}"),
        ("{{nope .}}", 'template: :1: function "nope" not defined'),
        ("{{$x}}", 'template: :1: undefined variable "$x"'),
        ("{{}}", "template: :1: missing value for command"),
        ("{{if}}x{{end}}", "template: :1: missing value for if"),
        ('{{"x}}', "template: :1: unterminated quoted string"),
        ("{{(1}}", "template: :1: unclosed left paren"),
        ("{{1)}}", "template: :1: unexpected right paren"),
        ("{{/* x}}", "template: :1: unclosed comment"),
        ("{{break}}", "template: :1: {{break}} outside {{range}}"),
        ("{{.A.}}", "template: :1: unexpected <.> in operand"),
        ("{{1 | 2}}", "template: :1: non executable command in pipeline stage 2"),
    ],
)
def test_parse_errors(template: str, message: str) -> None:
    with pytest.raises(TemplateError) as caught:
        compile_template(template)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("template", "where", "reason"),
    [
        ("{{.Foo}}", ":1:2: .Foo", 'map has no entry for key "Foo"'),
        ("{{.Config.Foo}}", ":1:9: .Config.Foo", 'map has no entry for key "Foo"'),
        ("ab\n{{ .Name.X}}", ":2:8: .Name.X", "can't evaluate field X in type interface {}"),
        ("{{json}}", ":1:2: json", "wrong number of args for json: want 1 got 0"),
        ("{{lt .Name 1}}", ":1:2: lt .Name 1", "error calling lt: incompatible types for comparison"),
        ("{{index .Config.Cmd 9}}", ":1:2: index .Config.Cmd 9", "error calling index: index out of range: 9"),
        ("{{len 3}}", ":1:2: len 3", "error calling len: len of type int"),
        ("{{eq .Config.Cmd 1}}", ":1:2: eq .Config.Cmd 1",
         "error calling eq: non-comparable type [sh -c x y]: []interface {}"),
        ("{{.Nothing.X}}", ":1:10: .Nothing.X", "nil pointer evaluating interface {}.X"),
        ("{{.Health.X}}", ":1:9: .Health.X", 'map has no entry for key "Health"'),
        ("{{range .Count}}{{end}}", ":1:8: .Count", "range can't iterate over 3"),
        ("{{.Name | .Id}}", ":1:10: .Id", "Id is not a method but has arguments"),
        ("{{index .Config.Cmd (len .Config.Cmd)}}", ":1:2: index .Config.Cmd (l...",
         "error calling index: index out of range: 3"),
    ],
)  # fmt: skip
def test_execution_errors(template: str, where: str, reason: str) -> None:
    with pytest.raises(TemplateError) as caught:
        run(template)
    position, _, source = where.partition(": ")
    assert str(caught.value) == f'template: {position}: executing "" at <{source}>: {reason}'


def test_an_absent_key_prints_no_value() -> None:
    assert compile_template("{{.zz}}").execute({}) == "<no value>"

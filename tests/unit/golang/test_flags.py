"""pflag's grammar, and its words of refusal."""

from __future__ import annotations

import pytest

from havre.golang.flags import Flag, UsageError, parse

FLAGS = (
    Flag("all", "a", "", "All"),
    Flag("interactive", "i", "", "Input"),
    Flag("tty", "t", "", "Terminal"),
    Flag("init", "", "bool?", "Init"),
    Flag("name", "", "string", "Name"),
    Flag("publish", "p", "list", "Ports"),
    Flag("alias", "", "strings", "Names"),
    Flag("time", "t2", "int", "Seconds"),
    Flag("last", "n", "int", "Count", -1),
    Flag("memory", "m", "bytes", "Memory"),
    Flag("sig-proxy", "", "", "Signals", True),
    Flag("filter", "f", "filter", "Filter"),
)


def read(*words: str, stop: bool = False) -> tuple[dict[str, object], list[str]]:
    options, arguments = parse(FLAGS, list(words), stop=stop)
    return {name: getattr(options, name) for name in options.given if name not in ("help", "h")}, arguments


@pytest.mark.parametrize(
    ("words", "values", "arguments"),
    [
        (["-it"], {"interactive": True, "tty": True}, []),
        (["-itp80:80"], {"interactive": True, "tty": True, "publish": ["80:80"]}, []),
        (["-p80:80", "-p", "81", "-p=82", "--publish=83"], {"publish": ["80:80", "81", "82", "83"]}, []),
        (["--all=false", "x"], {"all": False}, ["x"]),
        (["--all", "false"], {"all": True}, ["false"]),
        (["-a=true"], {"all": True}, []),
        (["--name", "-x"], {"name": "-x"}, []),
        (["--name="], {"name": ""}, []),
        (["x", "--all", "y"], {"all": True}, ["x", "y"]),
        (["x", "--", "--all"], {}, ["x", "--all"]),
        (["-"], {}, ["-"]),
        (["--alias", "a,b", "--alias=c"], {"alias": ["a", "b", "c"]}, []),
        (["-n", "0x10"], {"last": 16}, []),
        (["-n-1"], {"last": -1}, []),
        (["--init=false"], {"init": False}, []),
    ],
)
def test_grammar(words: list[str], values: dict[str, object], arguments: list[str]) -> None:
    assert read(*words) == (values, arguments)


def test_stops_at_the_first_argument_where_asked() -> None:
    assert read("-a", "image", "--all", "-it", stop=True) == ({"all": True}, ["image", "--all", "-it"])


def test_flags_that_are_not_given_have_their_defaults() -> None:
    options, _ = parse(FLAGS, [], stop=False)
    assert (options.all, options.init, options.name, options.publish, options.last, options.memory) == (
        False, None, "", [], -1, 0
    )  # fmt: skip
    assert options.sig_proxy is True
    assert options.given == set()


@pytest.mark.parametrize("word", ["-h", "--help", "-ah"])
def test_help_ends_reading(word: str) -> None:
    options, _ = parse(FLAGS, [word, "--nonsense"], stop=False)
    assert "help" in options.given


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--foo"], "unknown flag: --foo"),
        (["-ax"], "unknown shorthand flag: 'x' in -ax"),
        (["--name"], "flag needs an argument: --name"),
        (["-ap"], "flag needs an argument: 'p' in -ap"),
        (["-n", "x"], 'invalid argument "x" for "-n, --last" flag: strconv.ParseInt: parsing "x": invalid syntax'),
        (["-n", "08"], 'invalid argument "08" for "-n, --last" flag: strconv.ParseInt: parsing "08": invalid syntax'),
        (["--all=x"], 'invalid argument "x" for "-a, --all" flag: strconv.ParseBool: parsing "x": invalid syntax'),
    ],
)
def test_refusals(words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(FLAGS, words, stop=False)
    assert str(caught.value) == message
    assert caught.value.exit_code == 125

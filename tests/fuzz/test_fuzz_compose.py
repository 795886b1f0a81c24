"""Whatever a Compose file, a file of variables or a template says, the answer is a model or an error of our own."""

from __future__ import annotations

import contextlib

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from havre.compose import yamlwrite
from havre.compose.dotenv import parse_env
from havre.compose.interpolate import Variables, substitute
from havre.compose.load import Loader, Source
from havre.compose.schema import PROJECT, SERVICE
from havre.compose.shortforms import parse_port, parse_volume
from havre.compose.yamlread import read_documents
from havre.dockerfile.ignore import IgnoreRules
from havre.errors import HavreError

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
SCALAR = st.one_of(st.none(), st.booleans(), st.integers(-9, 70000), st.floats(allow_nan=False), TEXT,
                   st.sampled_from(["80:80", "a:/b:ro", "1m", "x=y", "service:a", "${A}", "a", "true"]))  # fmt: skip
KEYS = st.sampled_from([*SERVICE.by_name, "condition", "context", "source", "target", "a", "test", "limits", "soft"])
VALUE = st.recursive(SCALAR, lambda v: st.lists(v, max_size=3) | st.dictionaries(KEYS, v, max_size=3), max_leaves=6)
SERVICES = st.dictionaries(st.sampled_from(list(SERVICE.by_name)), VALUE, max_size=4)
MODEL = st.fixed_dictionaries(
    {"services": st.dictionaries(st.sampled_from("abc"), SERVICES, max_size=2)},
    optional={name: VALUE for name in PROJECT.by_name if name not in ("services", "include", "name")},
)

YAML = ["services:", "\n  ", "a:", " ", "- ", "{", "}", "[", "]", "&x ", "*x", "<<: ", "!reset ", "!override ",
        "!!python/object:os.system ", "|", "'", '"', "\n", "image: x", "? "]  # fmt: skip
PATHS = st.sampled_from(["a", "a/b", ".a/b/a"])


def project_of(text: str) -> None:
    with contextlib.suppress(HavreError):
        project = Loader(Source(("-",), "/nowhere", "p", {"A": "1"}, stdin=text)).project()
        assert project.to_yaml()
        assert project.to_json()


@settings(max_examples=300, deadline=None)
@given(MODEL)
def test_models(model: object) -> None:
    project_of(yaml.safe_dump(model, allow_unicode=True))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(YAML), max_size=20))
def test_texts(parts: list[str]) -> None:
    project_of("".join(parts))


@settings(max_examples=300, deadline=None)
@given(VALUE.filter(lambda value: value is not None))
def test_what_is_written_reads_back(value: object) -> None:
    text = yamlwrite.render({"k": value})
    back = next(read_documents(text, "-")).value["k"]
    assert back == value or "\\n" in repr(value)  # what a block of text is in YAML is another matter


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(["$", "{", "}", "A", ":-", "-", "?", ":+", "x", "$$", " "]), max_size=12).map("".join))
def test_interpolation(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(substitute(text, Variables({"A": "1"})), str)


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("ABc='\"\\$#{} \n:export"), max_size=24))
def test_variables(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert all(isinstance(value, str) for value in parse_env(text, {}.get).values())


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("0189:-/.[]audptcp,ro"), max_size=16))
def test_short_forms(text: str) -> None:
    for parse in (parse_port, parse_volume):
        with contextlib.suppress(ValueError):
            assert parse(text)  # type: ignore[operator]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(st.sampled_from("ab*?![]/\\."), max_size=6), max_size=4), PATHS)
def test_ignore_files(lines: list[str], path: str) -> None:
    with contextlib.suppress(HavreError):
        assert IgnoreRules(lines).ignores(path) in (True, False)

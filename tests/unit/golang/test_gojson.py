"""What Go's encoding/json forgives is forgiven, wherever dockerd decodes with it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from havre.errors import InvalidInput
from havre.golang import gojson
from havre.golang.gojson import MAX_DEPTH, Unsigned, Words


class Inner(msgspec.Struct, rename="pascal"):
    """A struct in a struct."""

    number: int = 0
    large: Unsigned = 0


class Outer(msgspec.Struct, rename="pascal"):
    """One field for each shape."""

    text: str = "unset"
    words: Words | None = None
    inner: Inner = msgspec.field(default_factory=Inner)
    texts: dict[str, str] = {}
    optional: dict[str, Inner | None] = {}
    items: list[Inner] = []
    anything: Any = None


def test_keys_have_any_case_and_keys_of_maps_are_data() -> None:
    found = gojson.decode('{"TEXT":"a","inner":{"NUMBER":5},"texts":{"Text":"b","text":"c"}}', Outer)
    assert (found.text, found.inner.number, found.texts) == ("a", 5, {"Text": "b", "text": "c"})


def test_keys_are_folded_as_go_folds_them() -> None:
    found = gojson.decode('{"wordſ":["a"],"ITEM\u017f":[{}],"te\u0445t":"b"}', Outer)
    assert (found.words, found.items, found.text) == (["a"], [Inner()], "unset")


@pytest.mark.parametrize("second", ['"TEXT":null', '"texT":"b"'])
def test_a_field_is_named_once(second: str) -> None:
    with pytest.raises(InvalidInput, match=r"Items\[0\]\.Number: named more than once, in different cases"):
        gojson.decode('{"Items":[{"Number":1,"number":2}]}', Outer)
    with pytest.raises(InvalidInput, match="Text: named more than once"):
        gojson.decode(f'{{"Text":"a",{second}}}', Outer)


def test_null_is_absent_in_a_struct_and_zero_in_a_list_or_map() -> None:
    found = gojson.decode('{"Text":null,"Texts":{"a":null},"Items":[null],"Optional":{"a":null},"Words":null}', Outer)
    assert found == Outer(texts={"a": ""}, items=[Inner()], optional={"a": None})
    assert gojson.decode("null", Outer) == Outer()


def test_words_may_be_a_string() -> None:
    assert gojson.decode('{"Words":"a b"}', Outer).words == ["a b"]
    assert gojson.decode('{"Words":["a",null]}', Outer).words == ["a", ""]


def test_unsigned_numbers_have_64_bits() -> None:
    assert gojson.decode('{"Inner":{"Large":18446744073709551615}}', Outer).inner.large == 2**64 - 1
    for text in ('{"Items":[{"Number":18446744073709551615}]}', '{"Items":[{"Large":-9223372036854775809}]}'):
        with pytest.raises(InvalidInput, match=r"Items\[0\]\.\w+: -?\d+ does not fit in 64 bits"):
            gojson.decode(text, Outer)


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 700, 100_000])
@pytest.mark.parametrize("bracket", ["[]", '{"a":}'])
def test_deep_documents_are_refused_before_an_encoder_fails_on_them(depth: int, bracket: str) -> None:
    document = bracket[:-1] * depth + "5" + bracket[-1] * depth
    with pytest.raises(InvalidInput, match="nested too deeply"):
        gojson.decode(f'{{"Anything":{document}}}', Outer)


def test_what_nobody_knows_may_be_as_it_likes() -> None:
    assert gojson.decode('{"Unknown":' + "[" * 500 + "]" * 500 + "}", Outer) == Outer()


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ("{", "bad thing: unexpected EOF"),
        ("{} {}", "bad thing: unexpected content after JSON"),
        ('{"Text":5}', "bad thing: Text: expected str, got int"),
        (b'{"Text":"\xff"}', "bad thing: not UTF-8"),
        ('{"Text":"\ud800"}', "bad thing: not Unicode"),
    ],
)
def test_refusals_begin_with_what_was_read(document: str | bytes, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        gojson.decode(document, Outer, "bad thing")

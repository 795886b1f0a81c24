"""Functions of templates: Go's, and docker's json, split, join, title, lower, upper, pad, truncate.

A function raises ValueError with the reason; the evaluator adds the position.
"""

from __future__ import annotations

from havre.golang.jsontext import encode
from havre.golang.templates.gotypes import Nil, Struct, Time, plain
from havre.golang.texts import go_quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

NO_VALUE = type("NoValue", (), {"__bool__": lambda self: False})()
"""The value of an absent key of a map."""

_MOST_TEXT = 1 << 24
"""Limit of the characters that one call may produce."""

_HTML = str.maketrans({"<": "&lt;", ">": "&gt;", "&": "&amp;", '"': "&#34;", "'": "&#39;", "\0": "\ufffd"})


def render(value: Any) -> str:
    """A value as Go's `%v` prints it."""
    if isinstance(value, Time):
        return value.shown
    if isinstance(value, str):
        return value
    if value is None:
        return "<nil>"
    if value is NO_VALUE:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Nil):
        return value.shown
    if isinstance(value, float):
        return _render_float(value)
    if isinstance(value, Struct):
        return "{" + " ".join(render(item) for item in value.values()) + "}"
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{render(item)}" for key, item in sorted(value.items())) + "]"
    if isinstance(value, list):
        return "[" + " ".join(render(item) for item in value) + "]"
    return str(value)


def _render_float(value: float) -> str:
    if value.is_integer() and abs(value) < 1e21:
        return str(int(value))
    mantissa, e, exponent = repr(value).partition("e")
    return f"{mantissa}e{exponent[0]}{exponent[1:]:0>2}" if e else mantissa


def truth(value: Any) -> bool:
    """Report whether a value is not empty, as Go's templates define it; a struct never is empty."""
    if isinstance(value, Struct):
        return True
    return bool(value) if isinstance(value, str | int | float | list | dict | Nil) or not value else True


def type_name(value: Any) -> str:
    """Go's name of a value's type, for error messages."""
    if named := getattr(value, "type_name", ""):
        return str(named)
    if isinstance(value, bool):
        return "bool"
    for kind, name in ((str, "string"), (int, "int"), (float, "float64"), (list, "[]interface {}"),
                       (dict, "map[string]interface {}")):  # fmt: skip
        if isinstance(value, kind):
            return name
    return "interface {}"


def compare(one: Any, other: Any) -> int:
    """Negative, 0 or positive for less, equal or greater, for values of one basic kind. Raises ValueError."""
    kinds = {_basic(one), _basic(other)}
    if len(kinds) != 1:
        raise ValueError("incompatible types for comparison")
    return int(one > other) - int(one < other)


def _basic(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    for kind, name in ((int, "int"), (float, "float"), (str, "string")):
        if isinstance(value, kind):
            return name
    raise ValueError("invalid type for comparison")


def _ordered(one: Any, other: Any) -> int:
    if isinstance(one, bool):
        raise ValueError("invalid type for comparison")
    return compare(one, other)


def _eq(one: Any, *others: Any) -> bool:
    if not others:
        raise ValueError("missing argument for comparison")
    if isinstance(one, list | dict):
        raise ValueError(f"non-comparable type {render(one)}: {type_name(one)}")
    if one is None or one is NO_VALUE:
        return any(other is None or other is NO_VALUE for other in others)
    return any(other is not None and compare(one, other) == 0 for other in others)


def _ne(one: Any, other: Any) -> bool:
    return not _eq(one, other)


def _and(*values: Any) -> Any:
    return next((value for value in values if not truth(value)), values[-1])


def _or(*values: Any) -> Any:
    return next((value for value in values if truth(value)), values[-1])


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        value = _element(value, key)
    return value


def _element(value: Any, key: Any) -> Any:
    if value is None or value is NO_VALUE:
        raise ValueError("index of untyped nil")
    if isinstance(value, Nil) and value.shown == "map[]":
        return NO_VALUE
    if isinstance(value, dict) and not isinstance(value, Struct):
        if not isinstance(key, str):
            raise ValueError(f"value has type {type_name(key)}; should be string")
        return value.get(key, "")
    if isinstance(value, list | str | Nil):
        if isinstance(key, bool) or not isinstance(key, int):
            raise ValueError(f"cannot index slice/array with type {type_name(key)}")
        if not 0 <= key < len(value):
            raise ValueError(f"index out of range: {key}")
        return ord(value[key]) if isinstance(value, str) else value[key]  # type: ignore[index]
    raise ValueError(f"can't index item of type {type_name(value)}")


def _slice(value: Any, *bounds: Any) -> Any:
    if len(bounds) > 3:
        raise ValueError(f"too many slice indexes: {len(bounds)}")
    if not isinstance(value, str | list):
        raise ValueError(f"can't slice item of type {type_name(value)}")
    if isinstance(value, str) and len(bounds) == 3:
        raise ValueError("cannot 3-index slice a string")
    for bound in bounds:
        if isinstance(bound, bool) or not isinstance(bound, int):
            raise ValueError(f"cannot index slice/array with type {type_name(bound)}")
        if not 0 <= bound <= len(value):
            raise ValueError(f"index out of range: {bound}")
    first, last = (*bounds[:2], 0, len(value))[:2] if len(bounds) != 1 else (bounds[0], len(value))
    if not bounds:
        first, last = 0, len(value)
    if first > last:
        raise ValueError(f"invalid slice index: {first} > {last}")
    return value[first:last]


def _len(value: Any) -> int:
    if value is None or value is NO_VALUE:
        raise ValueError("len of nil pointer")
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogateescape"))
    if isinstance(value, Struct) or not isinstance(value, list | dict | Nil):
        raise ValueError(f"len of type {type_name(value)}")
    return len(value)


def _print(*values: Any) -> str:
    """Go's fmt.Sprint: spaces between two operands if neither is a string."""
    text = ""
    for index, value in enumerate(values):
        if index and not isinstance(value, str) and not isinstance(values[index - 1], str):
            text += " "
        text += render(value)
        _bounded(len(text))
    return text


def _println(*values: Any) -> str:
    text = ""
    for value in values:
        text += f"{render(value)} "
        _bounded(len(text))
    return text[:-1] + "\n"


def _json(value: Any) -> str:
    as_json = getattr(value, "as_json", None)
    if as_json is not None:
        return encode(as_json(), escape_html=True)
    return encode(plain(None if value is NO_VALUE else value))


def _split(text: Any, separator: Any) -> list[str]:
    return text.split(separator) if separator else list(text)


def _join(items: Any, separator: Any) -> str:
    if isinstance(items, Nil):
        return ""
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise ValueError(f"wrong type for value; expected []string; got {type_name(items)}")
    _bounded(len(str(separator)) * len(items))
    return str(separator).join(items)


def _bounded(length: int) -> None:
    if length > _MOST_TEXT:
        raise ValueError("its result would be too long")


def _pad(text: str, before: int, after: int) -> str:
    if text and min(before, after) < 0:
        raise ValueError("strings: negative Repeat count")
    _bounded(before + after)
    return " " * before + text + " " * after if text else text


def _truncate(text: str, length: int) -> str:
    if length < 0:
        raise ValueError(f"runtime error: slice bounds out of range [:{length}]")
    return text if len(text) < length else text[:length]


def _title(text: str) -> str:
    """The first letter of every word in title case, the others in lower case."""
    return "".join(c.lower() if i and (text[i - 1].isalnum() or text[i - 1] == "'") else c.title()
                   for i, c in enumerate(text))  # fmt: skip


def _html(*values: Any) -> str:
    return _print(*values).translate(_HTML)


def _js(*values: Any) -> str:
    text = _print(*values)
    for char, escape in (("\\", "\\\\"), ("'", "\\'"), ('"', '\\"'), ("<", "\\u003C"), (">", "\\u003E"),
                         ("&", "\\u0026"), ("=", "\\u003D"), ("\n", "\\u000A")):  # fmt: skip
        text = text.replace(char, escape)
    return text


def _urlquery(*values: Any) -> str:
    from urllib.parse import quote_plus  # imported late: expensive and rarely used

    return quote_plus(_print(*values))


def sprintf(form: str, *values: Any) -> str:
    """Go's fmt.Sprintf: %v %s %q %d %x %o %b %c %t %f %e %g %T %%, with flags, width and precision."""
    out = ""
    rest = list(values)
    index = 0
    while index < len(form):
        start = form.find("%", index)
        if start < 0:
            out += form[index:]
            break
        out += form[index:start]
        end = start + 1
        while end < len(form) and form[end] in "+-# 0123456789.":
            end += 1
        if end >= len(form):
            return out + "%!(NOVERB)"
        verb, flags = form[end], form[start + 1 : end]
        index = end + 1
        _bounded(len(out) + _widest(flags))
        if verb == "%":
            out += "%"
        elif not rest:
            out += f"%!{verb}(MISSING)"
        else:
            out += _verb(verb, flags, rest.pop(0))
    if rest:
        out += "%!(EXTRA "
        for value in rest:
            out += f"{type_name(value)}={render(value)}, "
            _bounded(len(out))
        out = out.removesuffix(", ") + ")"
    return out


def _widest(flags: str) -> int:
    """The larger of a verb's width and precision."""
    return max((int(digits) for digits in flags.lstrip("+-# ").split(".") if digits.isdigit()), default=0)


def _verb(verb: str, flags: str, value: Any) -> str:
    if verb == "v" or (verb == "s" and not isinstance(value, int | float)):
        return _padded(render(value), flags)
    if verb == "q" and isinstance(value, str):
        return _padded(go_quote(value), flags)
    if verb == "T":
        return _padded(type_name(value), flags)
    if verb == "t" and isinstance(value, bool):
        return _padded(render(value), flags)
    if verb in "xX" and isinstance(value, str):
        text = value.encode().hex()
        return _padded(text.upper() if verb == "X" else text, flags)
    if verb == "c" and isinstance(value, int):
        return _padded(chr(value) if 0 <= value < 0x110000 else "\ufffd", flags)
    whole = verb in "dxXob" and isinstance(value, int) and not isinstance(value, bool)
    if whole or (verb in "feEgG" and isinstance(value, float)):
        sign = "".join(flag for flag in flags if flag in "+ #0")
        rest = flags.lstrip("+-# 0")
        try:
            text = format(value, ("+" if "+" in sign else "") + ("#" if "#" in sign else "")
                          + ("0" if "0" in sign and "-" not in flags else "") + rest + verb)  # fmt: skip
        except ValueError:
            return f"%!{verb}({type_name(value)}={render(value)})"
        return text.strip().ljust(len(text)) if "-" in flags else text
    return f"%!{verb}({type_name(value)}={render(value)})"


def _padded(text: str, flags: str) -> str:
    size, dot, precision = flags.lstrip("+-# 0").partition(".")
    if dot and precision.isdigit() and not text.lstrip("+-").replace(".", "").isdigit():
        text = text[: int(precision)]
    width = int(size) if size else 0
    return text.ljust(width) if "-" in flags else text.rjust(width)


# name: function, minimum and maximum number of arguments (None: unlimited), types of the parameters where checked
FUNCTIONS: dict[str, tuple[Callable[..., Any], int, int | None, tuple[type, ...]]] = {
    "and": (_and, 1, None, ()),
    "or": (_or, 1, None, ()),
    "not": (lambda value: not truth(value), 1, 1, ()),
    "eq": (_eq, 1, None, ()),
    "ne": (_ne, 2, 2, ()),
    "lt": (lambda a, b: _ordered(a, b) < 0, 2, 2, ()),
    "le": (lambda a, b: _ordered(a, b) <= 0, 2, 2, ()),
    "gt": (lambda a, b: _ordered(a, b) > 0, 2, 2, ()),
    "ge": (lambda a, b: _ordered(a, b) >= 0, 2, 2, ()),
    "index": (_index, 1, None, ()),
    "slice": (_slice, 1, None, ()),
    "len": (_len, 1, 1, ()),
    "print": (_print, 0, None, ()),
    "println": (_println, 0, None, ()),
    "printf": (sprintf, 1, None, (str,)),
    "html": (_html, 0, None, ()),
    "js": (_js, 0, None, ()),
    "urlquery": (_urlquery, 0, None, ()),
    "json": (_json, 1, 1, ()),
    "split": (_split, 2, 2, (str, str)),
    "join": (_join, 2, 2, ()),
    "title": (_title, 1, 1, (str,)),
    "lower": (lambda text: text.lower(), 1, 1, (str,)),
    "upper": (lambda text: text.upper(), 1, 1, (str,)),
    "pad": (_pad, 3, 3, (str, int, int)),
    "truncate": (_truncate, 2, 2, (str, int)),
}

# For a table's header, these functions return their argument unchanged.
HEADER_FUNCTIONS = {
    **FUNCTIONS,
    **{name: (lambda text, *_: text, *FUNCTIONS[name][1:]) for name in ("json", "title", "lower", "upper", "truncate")},
    "join": (lambda text, *_: text, 2, 2, ()),
    "split": (lambda text, *_: [text], 2, 2, ()),
}

"""Sizes, spans, times, quoting and tables in docker's words."""

from __future__ import annotations

import pytest

from havre.cli.format.table import align
from havre.cli.ps import container_listing, ports_text
from havre.errors import InvalidInput
from havre.golang import texts as text


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "Less than a second"), (1, "1 second"), (59, "59 seconds"), (60, "About a minute"), (119, "About a minute"),
     (120, "2 minutes"), (3599, "59 minutes"), (3600, "About an hour"), (5400, "2 hours"), (47 * 3600, "47 hours"),
     (48 * 3600, "2 days"), (14 * 86400, "2 weeks"), (60 * 86400, "2 months"), (730 * 86400, "2 years")],
)  # fmt: skip
def test_spans(seconds: int, words: str) -> None:
    assert text.human_duration(seconds) == words


@pytest.mark.parametrize(
    ("size", "decimal", "short", "binary"),
    [(0, "0B", "0B", "0B"), (999, "999B", "999B", "999B"), (2_024_960, "2.025MB", "2.02MB", "1.931MiB"),
     (10**9, "1GB", "1GB", "953.7MiB"), (1536, "1.536kB", "1.54kB", "1.5KiB")],
)  # fmt: skip
def test_sizes(size: int, decimal: str, short: str, binary: str) -> None:
    assert (text.human_size(size), text.human_size(size, 3), text.binary_size(size)) == (decimal, short, binary)


def test_quoting() -> None:
    assert text.go_quote('a "b"\t\\\x01é…') == r'"a \"b\"\t\\\x01é…"'


def test_a_column_is_as_wide_as_its_widest_cell_and_the_last_cell_is_left_alone() -> None:
    assert align([["A", "BB", "C"], ["a longer one", "", "last"]]) == (
        "A              BB        C\na longer one             last\n"
    )


def test_a_column_ends_where_a_line_lacks_it() -> None:
    assert align([["aaaaaaaaaaaa", "b"], ["alone"], ["c", "d"]]) == "aaaaaaaaaaaa   b\nalone\nc         d\n"


@pytest.mark.parametrize(
    ("ports", "shown"),
    [
        ([], ""),
        ([{"PrivatePort": 80, "Type": "tcp"}], "80/tcp"),
        ([{"PrivatePort": 81, "Type": "tcp"}, {"PrivatePort": 80, "Type": "tcp"}, {"PrivatePort": 90, "Type": "tcp"}],
         "80-81/tcp, 90/tcp"),
        ([{"PrivatePort": 80, "PublicPort": 8080, "IP": "0.0.0.0", "Type": "tcp"}], "0.0.0.0:8080->80/tcp"),
        ([{"PrivatePort": p, "PublicPort": p, "IP": "127.0.0.1", "Type": "udp"} for p in (80, 81)],
         "127.0.0.1:80-81->80-81/udp"),
    ],
)  # fmt: skip
def test_ports(ports: list[dict[str, object]], shown: str) -> None:
    assert ports_text(ports) == shown


CONTAINER = {
    "Id": "0123456789abcdef0123", "Names": ["/web", "/other/web"], "Image": "busybox@sha256:00", "ImageID": "sha256:11",
    "Command": "sh -c 'a long command line'", "Created": 0, "Ports": [], "Labels": {"a": "1", "org.my-key": "2"},
    "State": "running", "Status": "Up 2 minutes", "Mounts": [{"Name": "", "Source": "/a/very/long/source"}],
}  # fmt: skip


def test_listing_as_table_json_and_template() -> None:
    listing = container_listing(truncate=True, size=False)
    table = listing.render([CONTAINER], "").splitlines()
    assert table[0].split("   ")[0] == "CONTAINER ID"
    assert table[1].startswith("0123456789ab   busybox")
    assert '"sh -c \'a long comma…"' in table[1]
    assert listing.render([CONTAINER], '{{.ID}}\\t{{.Names}} {{.Label "a"}}') == "0123456789ab\tweb 1\n"
    assert (
        listing.render([CONTAINER], 'table {{.Names}}\\t{{.Label "org.my-key"}}') == "NAMES     my key\nweb       2\n"
    )
    assert listing.render([CONTAINER], "json").startswith('{"Command":"\\"sh -c \'a long comma…\\"","CreatedAt":')
    assert listing.render([], "table {{.ID}}") == "CONTAINER ID\n"


def test_an_unknown_field_is_told_with_docker_s_type() -> None:
    with pytest.raises(InvalidInput, match=r"can't evaluate field Foo in type \*formatter\.ContainerContext"):
        container_listing(truncate=True, size=False).render([CONTAINER], "{{.Foo}}")

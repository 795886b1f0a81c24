"""What an `Accept` header chooses."""

from __future__ import annotations

import pytest

from havre.wire.accept import match_accepted

OFFERS = ("application/jsonl", "application/x-ndjson", "application/json-seq")


@pytest.mark.parametrize(
    ("headers", "chosen"),
    [
        ([], ""),
        ([""], ""),
        (["*/*"], ""),
        (["application/*, text/plain"], ""),
        (["application/json"], ""),
        (["application/json-seq"], "application/json-seq"),
        (["Application/X-NDJSON; charset=utf-8"], "application/x-ndjson"),
        (["application/json-seq, application/jsonl"], "application/jsonl"),
        (["application/json-seq;q=0.9, application/jsonl;q=0.1"], "application/json-seq"),
        (["application/json-seq; q=0"], ""),
        (["application/json-seq; q=soon"], ""),
        (["text/html", "application/x-ndjson"], "application/x-ndjson"),
    ],
)
def test_the_best_of_the_offers(headers: list[str], chosen: str) -> None:
    assert match_accepted(headers, OFFERS) == chosen

"""Negotiation of a response's media type. Source: RFC 9110, "Accept"; moby's daemon/server/httputils/contenttype."""

from __future__ import annotations

from collections.abc import Sequence


def match_accepted(headers: Sequence[str], offers: Sequence[str]) -> str:
    """The offer that an `Accept` header names with the highest weight, the first of equals; "" if it names none.

    Ranges such as `*/*` name nothing: who sends one takes the default.
    """
    accepted: dict[str, float] = {}
    for part in ",".join(headers).split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        accepted[name] = max(_weight(parameters), accepted.get(name, 0.0))
    best = max(offers, key=lambda offer: accepted.get(offer, 0.0))
    return best if accepted.get(best, 0.0) > 0 else ""


def _weight(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0

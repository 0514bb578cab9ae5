"""Suggestion for a mistyped name."""

from __future__ import annotations

from collections.abc import Iterable


def suggest(name: str, known: Iterable[str], prefix: str = "") -> str:
    """End a sentence with the known name that is nearly this one, if there is any.

    Args:
        name: as it was written.
        known: the names that there are.
        prefix: what all of them begin with; it makes none of them more alike.
    """
    from difflib import get_close_matches  # who makes no mistake need not wait for it

    names = [each.removeprefix(prefix) for each in known]
    close = get_close_matches(name.removeprefix(prefix)[:100], names, 1, 0.6)
    return f"; did you mean {prefix}{close[0]}?" if close else ""

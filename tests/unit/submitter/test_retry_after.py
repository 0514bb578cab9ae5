"""The header Retry-After."""

from __future__ import annotations

import pytest

from submitter.api.responses import retry_after

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("value", "after"),
    [
        (" 5 ", 5.0),
        ("Fri, 15 Jan 2027 07:00:00 GMT", 0.0),
        ("Fri, 15 Jan 2027 08:01:00 -0000", 60.0),
        ("Fri, 15 Jan 2027 09:01:00 +0100", 60.0),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("٣", None),
        ("9" * 11, 86400.0),
        ("9" * 13, None),
        ("9" * 5000, None),
        ("Fri, 15 Jan 9999 08:01:00 GMT", 86400.0),
        ("\u0665", None),
        ("1e9", None),
        ("Fri, 99 Jan 2027 08:01:00 GMT", None),
        ("Fri, 15 Jan 99999 08:01:00 GMT", None),
    ],
)
def test_retry_after_is_read_or_left(value: str, after: float | None) -> None:
    """F27: seconds and dates, a day at most; what is neither is left to the retry policy."""
    assert retry_after(value, NOW) == after

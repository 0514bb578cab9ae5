"""The header Retry-After."""

from __future__ import annotations

import re
from datetime import UTC
from email.utils import parsedate_to_datetime

MAX_RETRY_AFTER_S = 86400.0
"""Seconds; whoever asks for more is asked again after a day."""


def retry_after(value: str, now: float) -> float | None:
    """Seconds to wait, from a number of them or from a date; None where it is neither.

    https://www.rfc-editor.org/rfc/rfc9110#field.retry-after

    Args:
        value: of the header.
        now: Unix seconds.
    """
    value = value.strip()
    if re.fullmatch(r"[0-9]{1,12}", value):
        return min(float(value), MAX_RETRY_AFTER_S)
    if len(value) > 64:
        return None
    try:
        date = parsedate_to_datetime(value)
        moment = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    # OverflowError: a date that is out of the platform's range.
    except (ValueError, OverflowError):
        return None
    return min(max(moment - now, 0.0), MAX_RETRY_AFTER_S)

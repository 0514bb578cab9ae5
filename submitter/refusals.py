"""From what the API answers where it refuses, to a typed error."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from submitter.errors import (
    ApiError,
    AuthFailed,
    InsufficientBalance,
    NotFound,
    RateLimited,
    Unavailable,
)
from submitter.prediction import JSON
from submitter.retry_after import retry_after

_MAX_MESSAGE = 300

_KINDS: dict[int, type[ApiError]] = {
    401: AuthFailed,
    402: InsufficientBalance,
    403: AuthFailed,
    404: NotFound,
    429: RateLimited,
}

_POOR = re.compile(r"(?i)insufficient[ _-](?:account[ _-])?(?:balance|credit|fund)")


def refusal(
    status: int,
    headers: Mapping[str, str],
    envelope: Mapping[str, JSON],
    code: int | None,
    now: float,
) -> ApiError | Unavailable:
    """Turn an answer that says no into the error that says why.

    Args:
        status: the HTTP status.
        headers: names in lower case.
        envelope: the body, where it is a JSON object.
        code: its outer `code`, where it has one.
        now: Unix seconds.
    """
    wait = retry_after(headers.get("retry-after", ""), now)
    kind = status
    # A 200 around an error is as much an error; in a 4xx the body's code is the sharper one.
    if code is not None and (kind < 300 or (kind < 500 and code in _KINDS)):
        kind = code
    # 408: the API did not get the whole request, as far as it knows.
    if kind == 408 or 500 <= kind < 600 or 5000 <= kind < 6000:
        reason = f"HTTP {status}" + (f", code {code}" if code is not None else "")
        return Unavailable(reason, status=status, retry_after=wait)
    message = _message(envelope)
    shown = code if code is not None else _word(envelope.get("error_code"))
    told: dict[str, Any] = {"status": status, "code": shown, "message": message}
    if kind == 429:
        return RateLimited(retry_after=wait, **told)
    if _POOR.search(f"{shown} {message}"):
        return InsufficientBalance(**told)
    if 300 <= kind < 400:
        return ApiError(advice="the API's address has moved; check WAVESPEED_BASE_URL", **told)
    return _KINDS.get(kind, ApiError)(**told)


def _message(envelope: Mapping[str, JSON]) -> str:
    for name in ("message", "error", "detail"):
        value = envelope.get(name)
        if isinstance(value, list) and value:
            value = value[0]
        if isinstance(value, dict):
            value = value.get("message", value.get("msg"))
        if isinstance(value, str) and value:
            line = "".join(c if c.isprintable() else " " for c in value[:_MAX_MESSAGE])
            return line.strip()
    return ""


def _word(value: JSON) -> str | None:
    """A textual code: shown in the error's text, so that it may be a word and nothing more."""
    return (
        value if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_.-]{1,40}", value) else None
    )

"""From what the API answers where it refuses, to a typed error."""

from __future__ import annotations

from typing import Any

import pytest

from submitter.api.responses import refusal
from submitter.errors import ApiError, InsufficientBalance, RateLimited, SubmitterError, Unavailable

NOW = 1_772_356_368.0


def refused(status: int, envelope: dict[str, Any], code: int | None = None) -> SubmitterError:
    return refusal(status, {"retry-after": "5"}, envelope, code, NOW)


def test_a_request_that_did_not_arrive_whole() -> None:
    """F32: a 408 is no refusal: a question is asked again, and of a submission nobody knows."""
    error = refused(408, {})
    assert isinstance(error, Unavailable)
    assert (error.status, error.retry_after) == (408, 5.0)


def test_what_to_wait_is_kept() -> None:
    """F27: a limit carries the wait that came with it, in whichever place the limit was told."""
    for error in (refused(429, {}), refused(400, {}, 429), refused(200, {}, 429)):
        assert isinstance(error, RateLimited)
        assert error.retry_after == 5.0


@pytest.mark.parametrize("word", ["x" * 41, "two words", "", "ü", 5, None])
def test_codes_that_are_no_words_are_not_shown(word: Any) -> None:
    """F16: only what looks like a code is shown, so that no input is."""
    error = refused(400, {"error_code": word, "message": "no"})
    assert isinstance(error, ApiError)
    assert error.code is None


def test_an_empty_account_in_words() -> None:
    """An account that cannot pay is told as such, whichever status and field say so."""
    for envelope in ({"error": "insufficient credits"}, {"error_code": "INSUFFICIENT_FUNDS"}):
        assert isinstance(refused(400, envelope), InsufficientBalance)

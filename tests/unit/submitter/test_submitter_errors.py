"""The exception tree."""

from __future__ import annotations

import inspect

import pytest

from submitter import errors
from submitter.errors import (
    ApiError,
    BadInput,
    BadSettings,
    ContextTooLarge,
    Fault,
    RateLimited,
    SubmissionUnknown,
    SubmitterError,
    Unavailable,
)


def test_one_base_and_the_drawing() -> None:
    """Every error has the one base, and stands in the drawing."""
    kinds = [
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, Exception)
    ]
    assert all(issubclass(kind, SubmitterError) for kind in kinds)
    assert all(kind.__name__ in str(errors.__doc__) for kind in kinds)


def test_bad_input_shows_its_faults_bounded() -> None:
    """The text lists the faults, and of very many the number."""
    error = BadInput([Fault(f"f{i}", "is wrong") for i in range(30)])
    assert len(error.faults) == 30
    assert "  f19: is wrong\n  and 10 more" in str(error)
    assert "more" not in str(BadInput(error.faults[:20]))


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (BadSettings("X_Y", "is not set"), "X_Y: is not set"),
        (ApiError(status=400), "the API refused the request (HTTP 400)"),
        (ApiError(status=400, code=400), "the API refused the request (HTTP 400)"),
        (
            ApiError(status=400, code=1402, message="SECRET"),
            "the API refused the request (HTTP 400, code 1402: a media URL could not be reached)",
        ),
        (
            ApiError(status=400, code="odd", advice="so it is"),
            "so it is (HTTP 400, code odd)",
        ),
        (
            RateLimited(retry_after=2.5),
            "too many requests; this one created nothing; try again in 2.5 s (HTTP 429)",
        ),
        (
            Unavailable("HTTP 503", status=503),
            "the API is not available (HTTP 503)",
        ),
        (
            SubmissionUnknown("a/b", 1.0, "ReadTimeout"),
            (
                "the task for a/b may have been created and billed (ReadTimeout); "
                "it was not sent again: look for it in the API's history first"
            ),
        ),
    ],
)
def test_texts(error: SubmitterError, text: str) -> None:
    """F16: a text says what happened and what to do, without the API's own words."""
    assert str(error) == text


def test_context_too_large_is_a_bad_input() -> None:
    """Whoever catches BadInput catches this too, with its fault."""
    error = ContextTooLarge(3000, 2048)
    assert [fault.path for fault in error.faults] == ["context"]
    assert "3000 bytes" in str(error)

"""Answers are read without any I/O."""

from __future__ import annotations

import json
from typing import Any

import pytest

from submitter import errors
from submitter.api import responses
from submitter.api.responses import ApiResponse
from submitter.prediction import Prediction

NOW = 1_772_356_368.0
KLING = "kwaivgi/kling-v2.1-i2v-standard"
TASK = {"id": "t1", "status": "created", "model": KLING}


def answer(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> ApiResponse:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return ApiResponse(status, headers or {}, content)


def submitted(given: ApiResponse) -> Prediction:
    return responses.read_submission(given, model=KLING, sent_at=NOW - 1, now=NOW)


def read(given: ApiResponse) -> Prediction:
    return responses.read_prediction(given, task_id="t1", now=NOW)


@pytest.mark.parametrize(
    "body",
    [
        {"code": 200, "message": "success", "data": TASK},
        {"data": TASK},
        {"code": 0, "data": TASK},
        {"code": 201, "data": TASK},
        {"code": "200", "data": TASK},
        TASK,
    ],
)
def test_a_prediction_in_its_envelope_or_bare(body: Any) -> None:
    """The task is found in every shape of a good answer."""
    assert submitted(answer(body)).id == "t1"
    assert read(answer(body)).id == "t1"


def test_a_failed_task_is_an_answer() -> None:
    """A failed task is read, not raised; its inner code is about the task."""
    failed = {"id": "t1", "status": "failed", "code": 1402}
    for body in ({"code": 200, "data": failed}, failed):
        prediction = read(answer(body))
        assert (prediction.status, prediction.code) == ("failed", 1402)


SHAPES: list[tuple[Any, str, int | str | None]] = [
    ({"code": 400, "message": "no"}, "no", 400),
    ({"code": 1401, "message": "no"}, "no", 1401),
    ({"message": "no", "error_code": "BAD_THING"}, "no", "BAD_THING"),
    ({"error": "no"}, "no", None),
    ({"error": {"message": "no"}}, "no", None),
    ({"detail": "no"}, "no", None),
    ({"detail": [{"loc": ["body"], "msg": "no"}]}, "no", None),
    ({"detail": {"message": "no"}}, "no", None),
    ({"detail": []}, "", None),
    ({"message": "a\r\nb\x1b[31m"}, "a  b [31m", None),
    ({"message": "x" * 5000}, "x" * 300, None),
    ({"message": 5, "error_code": "not a word\n"}, "", None),
    ({"code": True}, "", None),
    (b"<html>no</html>", "", None),
    (b"", "", None),
    (b"\xff", "", None),
    (b"[" * 200_000, "", None),
    ([], "", None),
    ("no", "", None),
]


@pytest.mark.parametrize(("body", "message", "code"), SHAPES, ids=range(len(SHAPES)))
def test_error_bodies(body: Any, message: str, code: int | str | None) -> None:
    """F17: every shape of an error body gives its words, bounded and in one line."""
    for reader in (submitted, read):
        with pytest.raises(errors.ApiError) as caught:
            reader(answer(body, 400))
        assert (caught.value.message, caught.value.code) == (message, code)
        assert caught.value.status == 400


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, {"message": "no"}, errors.AuthFailed),
        (403, b"", errors.AuthFailed),
        (200, {"code": 401, "message": "no"}, errors.AuthFailed),
        (400, {"code": 401}, errors.AuthFailed),
        (404, b"<html>", errors.NotFound),
        (200, {"code": 404, "data": None}, errors.NotFound),
        (402, {}, errors.InsufficientBalance),
        (400, {"message": "Insufficient balance, top up"}, errors.InsufficientBalance),
        (403, {"error_code": "INSUFFICIENT_CREDITS"}, errors.InsufficientBalance),
        (429, {"code": 429}, errors.RateLimited),
        (200, {"code": 429}, errors.RateLimited),
        (400, {"error": "webhook with base64"}, errors.ApiError),
        (422, {"detail": []}, errors.ApiError),
        (200, {"code": 1401, "message": "no"}, errors.ApiError),
        (307, b"", errors.ApiError),
        (400, {"code": 5000}, errors.ApiError),
    ],
)
def test_refusals(status: int, body: Any, kind: type[errors.ApiError]) -> None:
    """The HTTP status and the body's code both count, for a submission and for a question."""
    for reader in (submitted, read):
        with pytest.raises(errors.ApiError) as caught:
            reader(answer(body, status))
        assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, {"code": 500, "message": "no"}),
        (502, b"<html>"),
        (503, {"error": "no"}),
        (504, b""),
        (200, {"code": 500}),
        (200, {"code": 5004, "message": "no"}),
        (200, b"<html>"),
        (200, b""),
    ],
)
def test_unusable_answers(status: int, body: Any) -> None:
    """F32: for a question worth asking again; for a submission nobody knows."""
    with pytest.raises(errors.Unavailable) as caught:
        read(answer(body, status))
    assert caught.value.status == status
    with pytest.raises(errors.SubmissionUnknown) as unknown:
        submitted(answer(body, status))
    assert (unknown.value.model, unknown.value.sent_at) == (KLING, NOW - 1)
    assert unknown.value.status == status


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, {"code": 200, "data": {}}),
        (200, {"code": 200, "data": None}),
        (200, {"code": 200, "data": {"id": 5, "status": "created"}}),
        (200, []),
        (200, {"code": 1405, "data": None}),
        (200, {"code": 1}),
        (200, {"code": 302}),
        (200, {"code": 400, "data": TASK}),
        (400, {"code": 400, "data": TASK}),
    ],
)
def test_answers_that_do_not_say_whether_a_task_exists(status: int, body: Any) -> None:
    """F32: only what surely created nothing is called a refusal."""
    with pytest.raises(errors.SubmissionUnknown):
        submitted(answer(body, status))
    with pytest.raises(errors.ApiError):
        read(answer(body, status))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("5", 5.0),
        ("Sun, 01 Mar 2026 09:13:48 GMT", 60.0),
        ("soon", None),
        (None, None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    """F27: both forms of Retry-After are read; anything else is as if absent."""
    headers = {} if value is None else {"retry-after": value}
    with pytest.raises(errors.RateLimited) as limited:
        submitted(answer(b"", 429, headers))
    with pytest.raises(errors.Unavailable) as away:
        read(answer(b"", 503, headers))
    assert limited.value.retry_after == away.value.retry_after == seconds


@pytest.mark.parametrize(
    "body",
    [
        {"code": 200, "data": {"secret": "whsec_abc"}},
        {"secret": "whsec_abc"},
        {"data": "whsec_abc"},
        {"code": 200, "message": "success", "data": "whsec_abc"},
    ],
)
def test_the_secret_in_each_shape(body: Any) -> None:
    """The secret is found in all three shapes."""
    assert responses.read_secret(answer(body), now=NOW) == "whsec_abc"


@pytest.mark.parametrize(
    "body", [{}, {"data": None}, {"data": {}}, {"secret": 5}, {"secret": ""}, {"data": "a b"}, []]
)
def test_an_answer_without_a_secret(body: Any) -> None:
    """F15: an answer without a secret is an error, not an empty secret."""
    with pytest.raises(errors.ApiError, match="no webhook secret"):
        responses.read_secret(answer(body), now=NOW)


@pytest.mark.parametrize(
    ("data", "size", "ids"),
    [
        ({"page": 1, "items": [TASK, None]}, 2, ["t1"]),
        ({"items": None}, 0, []),
        ([TASK], 1, ["t1"]),
    ],
)
def test_a_page_in_each_shape(data: Any, size: int, ids: list[str]) -> None:
    """A page is a list, alone or as `items`; it counts what could not be read, too."""
    page = responses.read_page(answer({"code": 200, "data": data}), now=NOW)
    assert (page.size, [prediction.id for prediction in page.predictions]) == (size, ids)


def test_an_answer_that_needs_to_hold_nothing() -> None:
    """An empty answer is as good as an envelope; an error in an envelope is one."""
    responses.read_done(answer(b"", 204), now=NOW)
    responses.read_done(answer(b" \n"), now=NOW)
    responses.read_done(answer({"code": 200, "data": None}), now=NOW)
    for body, status in (({"code": 404}, 200), (b"", 404)):
        with pytest.raises(errors.NotFound):
            responses.read_done(answer(body, status), now=NOW)
    with pytest.raises(errors.Unavailable):
        responses.read_done(answer(b"<html>"), now=NOW)


def test_a_storage_that_says_when() -> None:
    """F27: Retry-After of the storage is honoured as the API's is."""
    with pytest.raises(errors.Unavailable) as caught:
        responses.read_stored(answer(b"", 503, {"retry-after": "5"}), now=NOW)
    assert caught.value.retry_after == 5.0

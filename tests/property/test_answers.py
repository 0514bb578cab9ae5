"""Whatever the API answers, it is read, or is one of our errors."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from submitter.api import responses
from submitter.api.models import Model, Price
from submitter.api.responses import ApiResponse, HistoryPage, UploadTarget
from submitter.errors import RateLimited, SubmitterError, Unavailable
from submitter.prediction import Prediction, Status, TaskFailed

KEY = "5e2a3b7c9d1f4a6088b2c4d6e8f0a1b35e2a3b7c9d1f4a6088b2c4d6e8f0a1b3"
PROMPT = "a PROMPT that nobody may see"
NOW = 1_772_356_368.0

NAMES = [
    *["code", "data", "message", "error", "detail", "error_code", "msg", "id", "status", "model"],
    *["outputs", "items", "model_id", "base_price", "api_schema", "api_schemas", "request_schema"],
    *["price", "discounted_price", "balance", "secret", "upload", "url", "headers", "download_url"],
    *["created_at", "timings", "inference", "has_nsfw_contents", "input", "inputs", "urls", "get"],
]

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, 200, 201, 400, 401, 404, 429, 500, 1200, 1403, 5004, 10**400, -(10**40)])
    | st.floats()
    | st.text()
    | st.sampled_from([KEY, PROMPT, f"no: {PROMPT} {KEY}", "t1", *Status])
    | st.sampled_from(["https://a.example/x?y=z", f"https://{KEY}@a.example", "\ud800"])
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(NAMES) | st.text(), inner, max_size=5)
    ),
    max_leaves=12,
)
bodies = (
    st.binary()
    | values.map(lambda value: json.dumps(value).encode())
    | values.map(lambda value: json.dumps({"code": 200, "data": value}).encode())
    | st.integers(0, 100_000).map(lambda depth: b'{"data":' * depth)
)
given_answers = st.builds(
    ApiResponse,
    st.integers(100, 999) | st.sampled_from([200, 204, 302, 400, 401, 404, 408, 429, 500, 503]),
    st.dictionaries(
        st.sampled_from(["retry-after", "content-type", "location"]),
        st.text() | st.integers().map(str) | st.just(PROMPT),
    ),
    bodies,
)

Read = Callable[[ApiResponse], object]
READERS: dict[str, tuple[Read, Callable[[Any], bool]]] = {
    "submission": (
        lambda answer: responses.read_submission(answer, model="a/b", sent_at=NOW, now=NOW),
        lambda value: isinstance(value, Prediction),
    ),
    "prediction": (
        lambda answer: responses.read_prediction(answer, task_id="t1", now=NOW),
        lambda value: isinstance(value, Prediction) and value.id == "t1",
    ),
    "page": (
        lambda answer: responses.read_page(answer, now=NOW),
        lambda value: isinstance(value, HistoryPage) and len(value.predictions) <= value.size,
    ),
    "models": (
        lambda answer: responses.read_models(answer, now=NOW),
        lambda value: all(isinstance(each, Model) and each.id for each in value),
    ),
    "price": (
        lambda answer: responses.read_price(answer, now=NOW),
        lambda value: isinstance(value, Price) and value.price >= 0 and value.discounted >= 0,
    ),
    "balance": (
        lambda answer: responses.read_balance(answer, now=NOW),
        lambda value: isinstance(value, float) and abs(value) < float("inf"),
    ),
    "place": (
        lambda answer: responses.read_upload_target(answer, now=NOW),
        lambda value: isinstance(value, UploadTarget) and value.url.isascii(),
    ),
    "stored": (
        lambda answer: responses.read_stored(answer, now=NOW),
        lambda value: value is None,
    ),
    "done": (
        lambda answer: responses.read_done(answer, now=NOW),
        lambda value: value is None,
    ),
    "secret": (
        lambda answer: responses.read_secret(answer, now=NOW),
        lambda value: isinstance(value, str) and bool(value),
    ),
}


@pytest.mark.parametrize("name", READERS)
@given(answer=given_answers)
def test_any_answer_is_read_or_is_one_of_our_errors(name: str, answer: ApiResponse) -> None:
    """F11, F16: the value has its type, or the error is ours, short, and shows nothing private."""
    read, fits = READERS[name]
    try:
        value = read(answer)
    except SubmitterError as error:
        shown = f"{error!r} {''.join(traceback.format_exception_only(error))}"
        assert not any(secret in shown for secret in (KEY, PROMPT))
        assert len(str(error)) < 500  # noqa: PT017
        if isinstance(error, RateLimited | Unavailable):
            wait = error.retry_after
            assert wait is None or 0 <= wait <= 86400
    else:
        assert fits(value)


@given(values)
def test_any_prediction_ends_well_or_badly_or_not_yet(value: Any) -> None:
    """F11, F16: a prediction is returned, or raised by what the API calls it, with a short text."""
    prediction = Prediction.parse(value)
    if prediction is None:
        return
    try:
        assert prediction.raise_for_status() is prediction
    except TaskFailed as error:
        assert error.prediction is prediction  # noqa: PT017
        assert prediction.terminal
        assert not prediction.succeeded
    else:
        assert prediction.succeeded or not prediction.terminal

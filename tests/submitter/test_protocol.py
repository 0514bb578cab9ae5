"""The API's protocol, without any I/O."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from submitter import errors
from submitter.address import public_base, url_fault, webhook_url
from submitter.protocol import (
    Answer,
    Api,
    read_prediction,
    read_secret,
    read_submission,
)

NOW = 1_772_356_368.0
KLING = "kwaivgi/kling-v2.1-i2v-standard"
API = Api("https://api.wavespeed.ai", "key-SECRET")
TASK = {"id": "t1", "status": "created", "model": KLING}


def answer(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Answer(status, headers or {}, content)


def submitted(given: Answer) -> Any:
    return read_submission(given, model=KLING, sent_at=NOW - 1, now=NOW)


def test_submit_request() -> None:
    """The model's slashes stay, the webhook is one percent-encoded value, the body is JSON."""
    webhook = "https://hooks.example.com/a b/webhooks?x=1&y=ü#z"
    request = API.submit(KLING, {"prompt": "ü", "duration": 5}, webhook)
    parts = urlsplit(request.url)
    assert request.method == "POST"
    assert request.url.startswith(f"https://api.wavespeed.ai/api/v3/{KLING}?webhook=https%3A%2F%2F")
    assert parse_qs(parts.query, strict_parsing=True) == {"webhook": [webhook]}
    assert json.loads(request.content or b"") == {"prompt": "ü", "duration": 5}
    assert request.headers == {
        "authorization": "Bearer key-SECRET",
        "accept": "application/json",
        "content-type": "application/json",
    }


def test_submit_without_webhook() -> None:
    """Without a webhook there is no query."""
    assert API.submit(KLING, {}).url == f"https://api.wavespeed.ai/api/v3/{KLING}"


def test_reading_requests() -> None:
    """Results and the secret are asked for where all clients ask."""
    result, secret = API.result("7f3c"), API.webhook_secret()
    assert result.url == "https://api.wavespeed.ai/api/v3/predictions/7f3c/result"
    assert secret.url == "https://api.wavespeed.ai/api/v3/webhook/secret"
    assert (result.method, result.content) == ("GET", None)


def test_a_base_url_with_a_path() -> None:
    """A base URL may have a path, and may end with a slash."""
    api = Api("http://127.0.0.1:9/mock/", "k")
    assert api.webhook_secret().url == "http://127.0.0.1:9/mock/api/v3/webhook/secret"


@pytest.mark.parametrize(
    "model",
    [
        "",
        "/",
        "a/",
        "/a",
        "a//b",
        "..",
        "a/..",
        "../a",
        "a/./b",
        ".",
        "a\\b",
        "a b",
        "a?b",
        "a#b",
        "a%2fb",
        "a\nb",
        "a/b\n",
        "ü",
        "https://evil.example",
        "//evil",
        "x" * 257,
        "predictions",
        "predictions/delete",
        "models",
        "media/uploads",
        "webhook/secret",
        "model/price",
        "balance",
    ],
)
def test_models_that_leave_their_path(model: str) -> None:
    """F36: an id that would be another path, or one of the API's own, is refused."""
    with pytest.raises(errors.BadInput) as caught:
        API.submit(model, {})
    assert [fault.path for fault in caught.value.faults] == ["model"]


@pytest.mark.parametrize(
    "task", ["", ".", "..", "a/b", "../a", "a?b", "a#b", "a%2f", "a b", "a\n", "ü", "x" * 257]
)
def test_tasks_that_leave_their_path(task: str) -> None:
    """F36: a task id that would be another path is refused."""
    with pytest.raises(errors.BadInput, match="task_id"):
        API.result(task)


@given(st.text())
def test_no_id_leaves_its_path(text: str) -> None:
    """F36: whatever the ids are, the path is the one that was meant, or nothing is built."""
    for build in (API.result, lambda model: API.submit(model, {})):
        try:
            path = urlsplit(build(text).url).path
        except errors.BadInput:
            continue
        assert text in path
        assert path.count("/") in (3 + text.count("/"), 5)


@pytest.mark.parametrize("key", ["", "a b", "a\r\nx: y", "ü", "a\x00"])
def test_keys_that_break_a_header(key: str) -> None:
    """F16: a key that no header can carry is refused without being repeated."""
    with pytest.raises(errors.BadSettings) as caught:
        Api("https://api.wavespeed.ai", key)
    assert caught.value.setting == "WAVESPEED_API_KEY"
    assert not key or key not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x",
        "ftp://a",
        "https://",
        "http://example.com",
        "http://10.0.0.1",
        "https://a b",
        "https://u:p@a",
        "https://u@a",
        "https://a:99999",
        "https://[half",
        "https://a\n",
        "http://localhost.example.com",
        "http://127.0.0.1.example.com",
    ],
)
def test_urls_that_are_refused(url: str) -> None:
    """F16: plain HTTP off this machine, credentials and halves of URLs are refused."""
    assert url_fault(url)
    with pytest.raises(errors.BadSettings):
        Api(url, "k")


@pytest.mark.parametrize(
    "url",
    [
        "https://a",
        "https://a:8443/x?y=1",
        "http://localhost:8080",
        "http://127.0.0.9",
        "http://[::1]:80/",
        "http://a.localhost",
    ],
)
def test_urls_that_pass(url: str) -> None:
    """HTTPS anywhere, plain HTTP on this machine."""
    assert url_fault(url) is None


def test_the_public_url_has_room_for_a_path() -> None:
    """The webhook's path comes below the public URL, with the token where there is one."""
    base = public_base("https://hooks.example.com/app/")
    assert webhook_url(base, None) == "https://hooks.example.com/app/webhooks/wavespeed"
    assert webhook_url(base, "T") == "https://hooks.example.com/app/webhooks/wavespeed/T"
    for bad in ("https://a?x=1", "https://a/#", "http://example.com"):
        with pytest.raises(errors.BadSettings) as caught:
            public_base(bad)
        assert caught.value.setting == "WAVEHOOK_PUBLIC_URL"


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
    assert read_prediction(answer(body), now=NOW).id == "t1"


def test_a_failed_task_is_an_answer() -> None:
    """A failed task is read, not raised; its inner code is about the task."""
    failed = {"id": "t1", "status": "failed", "code": 1402}
    for body in ({"code": 200, "data": failed}, failed):
        prediction = read_prediction(answer(body), now=NOW)
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
    for read in (submitted, lambda given: read_prediction(given, now=NOW)):
        with pytest.raises(errors.ApiError) as caught:
            read(answer(body, 400))
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
    for read in (submitted, lambda given: read_prediction(given, now=NOW)):
        with pytest.raises(errors.ApiError) as caught:
            read(answer(body, status))
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
        read_prediction(answer(body, status), now=NOW)
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
        read_prediction(answer(body, status), now=NOW)


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
        read_prediction(answer(b"", 503, headers), now=NOW)
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
    assert read_secret(answer(body), now=NOW) == "whsec_abc"


@pytest.mark.parametrize(
    "body", [{}, {"data": None}, {"data": {}}, {"secret": 5}, {"secret": ""}, {"data": "a b"}, []]
)
def test_an_answer_without_a_secret(body: Any) -> None:
    """F15: an answer without a secret is an error, not an empty secret."""
    with pytest.raises(errors.ApiError, match="no webhook secret"):
        read_secret(answer(body), now=NOW)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text()
            | st.sampled_from(["code", "data", "message", "error", "detail", "id", "status"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(
    st.binary() | json_values.map(lambda value: json.dumps(value).encode()),
    st.integers(100, 599),
    st.dictionaries(st.just("retry-after"), st.text()),
)
def test_any_answer_gives_a_value_or_a_typed_error(
    body: bytes, status: int, headers: dict[str, str]
) -> None:
    """F11: whatever comes back, a reader returns or raises our own error, of bounded text."""
    given = Answer(status, headers, body)
    for read in (
        submitted,
        lambda given: read_prediction(given, now=NOW),
        lambda given: read_secret(given, now=NOW),
    ):
        try:
            assert read(given)
        except errors.SubmitterError as error:
            assert len(str(error)) < 500  # noqa: PT017


def test_reprs_show_nothing() -> None:
    """F16: neither requests, answers nor the Api show key, token, input or body."""
    request = API.submit(KLING, {"prompt": "SECRET"}, "https://a/webhooks/SECRET")
    assert "SECRET" not in f"{API!r} {request!r} {answer(b'SECRET', 200, {'x': 'SECRET'})!r}"

"""Requests are built without any I/O."""

from __future__ import annotations

import json
from datetime import datetime
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from submitter import errors
from submitter.api.requests import ApiRequests, HistoryFilters, put_file
from submitter.api.responses import ApiResponse, UploadTarget
from submitter.api.urls import public_base, url_fault
from submitter.submit.sender import webhook_url

KLING = "kwaivgi/kling-v2.1-i2v-standard"
API = ApiRequests("https://api.wavespeed.ai", "key-SECRET")


def test_submit_request() -> None:
    """The model's slashes stay, the webhook is one percent-encoded value, the body is JSON."""
    webhook = "https://hooks.example.com/a b/webhooks?x=1&y=ü#z"
    request = API.submit(KLING, {"prompt": "ü", "duration": 5}, webhook)
    parts = urlsplit(request.url)
    assert request.method == "POST"
    assert request.url.startswith(f"https://api.wavespeed.ai/api/v3/{KLING}?webhook=https%3A%2F%2F")
    assert parse_qs(parts.query, strict_parsing=True) == {"webhook": [webhook]}
    assert json.loads(request.content or b"") == {"prompt": "ü", "duration": 5}
    assert dict(request.headers) == {
        "authorization": "Bearer key-SECRET",
        "accept": "application/json",
        "accept-encoding": "gzip",
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
    api = ApiRequests("http://127.0.0.1:9/mock/", "k")
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
        ApiRequests("https://api.wavespeed.ai", key)
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
        ApiRequests(url, "k")


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


def test_who_asks() -> None:
    """Every request of the API tells who asks."""
    api = ApiRequests("https://api.wavespeed.ai", "k", (("x-client-name", "wavehook"),))
    for request in (api.balance(), api.submit(KLING, {}), api.history(1, 100, HistoryFilters())):
        assert ("x-client-name", "wavehook") in request.headers


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800", {1}, b"x", 2**70])
def test_inputs_that_are_no_json(value: object) -> None:
    """F11: what JSON does not have is refused with its path, for a submission and for a price."""
    for build in (API.submit, API.price):
        with pytest.raises(errors.BadInput) as caught:
            build(KLING, {"a": [value]})  # type: ignore[list-item]
        assert [fault.path for fault in caught.value.faults] == ["a[0]"]


@given(st.floats())
def test_any_time_is_sent_or_refused(seconds: float) -> None:
    """No number makes a filter of the history raise anything but BadInput."""
    try:
        request = API.history(1, 1, HistoryFilters(created_after=seconds))
    except errors.BadInput:
        assert not 0 <= seconds < 253_402_300_800
    else:
        moment = datetime.fromisoformat(json.loads(request.content or b"")["created_after"])
        assert moment.timestamp() == pytest.approx(seconds, abs=0.001)


def test_reprs_show_nothing() -> None:
    """F16: neither requests, answers nor the Api show key, token, input or body."""
    place = UploadTarget("https://a/SECRET", (("a", "SECRET"),), "https://cdn/a")
    request = API.submit(KLING, {"prompt": "SECRET"}, "https://a/webhooks/SECRET")
    answer = ApiResponse(200, {"x": "SECRET"}, b"SECRET")
    assert (
        "SECRET" not in f"{API!r} {request!r} {answer!r} {place!r} {put_file(place, b'SECRET')!r}"
    )

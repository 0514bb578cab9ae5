"""The client over a transport that answers in the same process."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from cryptography.fernet import Fernet

from submitter import errors
from submitter.client import BASE_URL, Submission, WaveSpeed, _wait
from submitter.seal import Seal, Sealed

pytestmark = pytest.mark.anyio

KEY, PROMPT = "wave-KEY-5e2a3b", "a PROMPT that nobody may see"
KLING = "kwaivgi/kling-v2.1-i2v-standard"
IMAGE = "https://example.com/first.png"
INPUT: dict[str, Any] = {"prompt": PROMPT, "image": IMAGE}
PUBLIC = "https://hooks.example.com"
NOW = 1_772_356_368.0
SEAL = Seal([Fernet.generate_key().decode()])
TASK = {"code": 200, "data": {"id": "t1", "status": "created"}}

Answering = Callable[[httpx.Request], httpx.Response]


class Wire(httpx.MockTransport):
    """Answers in turn, the last answer for ever, and keeps what was sent."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        super().__init__(self.answer)
        self.answers = list(answers)
        self.sent: list[httpx.Request] = []

    async def answer(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request)
        item = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(item, Exception):
            raise item
        return httpx.Response(item.status_code, headers=item.headers, content=item.content)


def reply(status: int = 200, body: Any = None, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, json=TASK if body is None else body, headers=named)


def client(wire: Wire, **more: Any) -> WaveSpeed:
    more = {"webhook_url": PUBLIC, "seal": SEAL, **more}
    return WaveSpeed(KEY, transport=wire, clock=lambda: NOW, **more)


async def test_submit() -> None:
    """A submission is one POST with key, input and webhook, and answers with the task's id."""
    wire = Wire(reply())
    async with client(wire) as wave:
        done = await wave.submit(KLING, {"image": IMAGE}, prompt=PROMPT)
    assert isinstance(done, Submission)
    assert (done.task_id, done.model, done.prediction.status) == ("t1", KLING, "created")
    [request] = wire.sent
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.url.path == f"/api/v3/{KLING}"
    assert str(request.url) == BASE_URL
    assert dict(request.url.params) == {"webhook": f"{PUBLIC}/webhooks/wavespeed"}
    assert json.loads(request.content) == INPUT


async def test_a_context_travels_sealed() -> None:
    """The webhook's path ends with a token that opens to the context and the model."""
    wire = Wire(reply())
    async with client(wire) as wave:
        await wave.submit(KLING, INPUT, context={"user": 7})
    base, _, token = wire.sent[0].url.params["webhook"].rpartition("/")
    assert base == f"{PUBLIC}/webhooks/wavespeed"
    assert SEAL.open(token, NOW) == Sealed({"user": 7}, KLING)


@pytest.mark.parametrize(
    ("webhook", "sent"),
    [
        (True, f"{PUBLIC}/webhooks/wavespeed"),
        (False, None),
        ("", None),
        ("https://other.example/x?y=1", "https://other.example/x?y=1"),
    ],
)
async def test_the_webhook_of_one_submission(webhook: str | bool, sent: str | None) -> None:
    """A submission may go without a webhook, or with one of its own."""
    wire = Wire(reply())
    async with client(wire) as wave:
        await wave.submit(KLING, INPUT, webhook=webhook)
    assert wire.sent[0].url.params.get("webhook") == sent


async def test_without_a_public_url_no_webhook_is_asked_for() -> None:
    """Without an address there is no webhook, and no error."""
    wire = Wire(reply())
    async with client(wire, webhook_url=None) as wave:
        await wave.submit(KLING, INPUT)
    assert wire.sent[0].url.query == b""


async def test_all_faults_before_anything_is_sent() -> None:
    """Faults of fields, webhook and context come together, each with its path; none is sent."""
    wire = Wire(reply())
    async with client(wire) as wave:
        with pytest.raises(errors.BadInput) as caught:
            await wave.submit(
                KLING, {"duration": 7, "image": IMAGE}, webhook="http://a.example", duration=8
            )
        assert {fault.path for fault in caught.value.faults} == {"duration", "prompt", "webhook"}
        assert "is given twice" in str(caught.value)
        with pytest.raises(errors.BadInput) as caught:
            await wave.submit("../delete", {"a": float("nan")}, context={"b": b""})  # type: ignore[dict-item]
        paths = [fault.path for fault in caught.value.faults]
        assert paths == ["model", "a", "context.b"]
    assert wire.sent == []


async def test_a_context_too_large_is_told_as_such() -> None:
    """A context over the limit alone keeps its own error."""
    wire = Wire(reply())
    async with client(wire) as wave:
        with pytest.raises(errors.ContextTooLarge):
            await wave.submit(KLING, INPUT, context="x" * 3000)
    assert wire.sent == []


@pytest.mark.parametrize("webhook", [False, "https://other.example/x"])
async def test_a_context_needs_the_clients_webhook(webhook: str | bool) -> None:
    """A context that would not travel is refused, not lost."""
    wire = Wire(reply())
    async with client(wire) as wave:
        with pytest.raises(errors.BadInput, match="context"):
            await wave.submit(KLING, INPUT, context=1, webhook=webhook)
    assert wire.sent == []


@pytest.mark.parametrize(
    ("more", "setting"),
    [({"webhook_url": None}, "WAVEHOOK_PUBLIC_URL"), ({"seal": None}, "WAVEHOOK_SEAL_KEYS")],
)
async def test_what_a_context_needs(more: dict[str, Any], setting: str) -> None:
    """A context without a way to travel names the setting that is missing."""
    wire = Wire(reply())
    async with client(wire, **more) as wave:
        with pytest.raises(errors.BadSettings) as caught:
            await wave.submit(KLING, INPUT, context=1)
    assert caught.value.setting == setting
    assert wire.sent == []


async def test_other_models_are_left_to_the_api() -> None:
    """A model without a built-in schema is sent as it is, if it is JSON."""
    wire = Wire(reply())
    async with client(wire) as wave:
        await wave.submit("vendor/other-model", anything=[1, {"x": None}])
        with pytest.raises(errors.BadInput, match="finite"):
            await wave.submit("vendor/other-model", anything=float("nan"))
    assert [json.loads(request.content) for request in wire.sent] == [
        {"anything": [1, {"x": None}]}
    ]


@pytest.mark.parametrize("kind", [httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout])
async def test_nothing_was_sent(kind: type[httpx.TransportError]) -> None:
    """Without a connection nothing was sent, which is no unknown submission."""
    wire = Wire(kind("x"))
    async with client(wire) as wave:
        with pytest.raises(errors.Unavailable):
            await wave.submit(KLING, INPUT)
    assert len(wire.sent) == 1


@pytest.mark.parametrize(
    "failure",
    [
        httpx.ReadTimeout("x"),
        httpx.WriteTimeout("x"),
        httpx.ReadError("x"),
        httpx.WriteError("x"),
        httpx.CloseError("x"),
        httpx.RemoteProtocolError("x"),
        httpx.ProxyError("x"),
        httpx.DecodingError("x"),
        reply(500, {"message": PROMPT}),
        reply(502, {}),
        reply(200, {"code": 5000}),
        reply(200, []),
    ],
    ids=repr,
)
async def test_a_lost_answer_is_not_sent_again(failure: httpx.Response | Exception) -> None:
    """F32: after anything that may have reached the API, the POST is not repeated."""
    wire = Wire(failure)
    async with client(wire) as wave:
        with pytest.raises(errors.SubmissionUnknown) as caught:
            await wave.submit(KLING, INPUT)
    assert len(wire.sent) == 1
    assert (caught.value.model, caught.value.sent_at) == (KLING, NOW)


async def test_a_limited_submission_says_when() -> None:
    """F27: a 429 is raised with its Retry-After, and is the caller's to repeat."""
    wire = Wire(reply(429, {}, retry_after="12"))
    async with client(wire) as wave:
        with pytest.raises(errors.RateLimited) as caught:
            await wave.submit(KLING, INPUT)
    assert caught.value.retry_after == 12.0
    assert len(wire.sent) == 1


@pytest.mark.parametrize(
    "failure",
    [
        httpx.ConnectError("x"),
        httpx.ReadTimeout("x"),
        httpx.RemoteProtocolError("x"),
        reply(429, {}),
        reply(429, {}, retry_after="7"),
        reply(500, {}),
        reply(503, {}, retry_after="60"),
        httpx.Response(200, content=b"<html>"),
    ],
    ids=repr,
)
async def test_questions_are_asked_again(failure: httpx.Response | Exception) -> None:
    """Network errors, 429 and 5xx are asked again until there is an answer."""
    done = {"code": 200, "data": {"id": "t1", "status": "completed"}}
    wire = Wire(failure, failure, reply(200, done))
    async with client(wire) as wave:
        assert (await wave.result("t1")).status == "completed"
    assert [request.url.path for request in wire.sent] == ["/api/v3/predictions/t1/result"] * 3


async def test_questions_end() -> None:
    """An API that stays away is given up on."""
    wire = Wire(reply(503, {}))
    async with client(wire) as wave:
        with pytest.raises(errors.Unavailable):
            await wave.webhook_secret()
    assert len(wire.sent) == 5


@pytest.mark.parametrize(
    "failure", [reply(404, {}), reply(401, {}), reply(429, {}, retry_after="3600"), reply(200, [])]
)
async def test_questions_that_are_not_asked_again(failure: httpx.Response) -> None:
    """A refusal, or a wait of an hour, is raised at once."""
    wire = Wire(failure)
    async with client(wire) as wave:
        with pytest.raises(errors.ApiError):
            await wave.result("t1")
    assert len(wire.sent) == 1


def test_retry_after_is_waited_for() -> None:
    """F27: the wait is what the API said, and up to a second more, so that clients spread."""
    waits = [_wait(errors.RateLimited(retry_after=7.0)) for _ in range(20)]
    assert all(7.0 <= wait <= 8.0 for wait in waits)
    assert len(set(waits)) > 1


async def test_the_secret() -> None:
    """The webhook secret is fetched and returned as text."""
    wire = Wire(reply(200, {"code": 200, "data": {"secret": "whsec_abc"}}))
    async with client(wire) as wave:
        assert await wave.webhook_secret() == "whsec_abc"
    assert wire.sent[0].url.path == "/api/v3/webhook/secret"


async def test_redirects_are_not_followed() -> None:
    """F32: a redirect neither repeats a submission nor carries the key elsewhere."""
    wire = Wire(reply(307, {}, location="https://elsewhere.example/"))
    async with client(wire) as wave:
        with pytest.raises(errors.ApiError, match="WAVESPEED_BASE_URL"):
            await wave.submit(KLING, INPUT)
    assert len(wire.sent) == 1


async def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Key and base URL are read when the client is made."""
    monkeypatch.setenv("WAVESPEED_API_KEY", f" {KEY}\n")
    monkeypatch.setenv("WAVESPEED_BASE_URL", "http://127.0.0.1:1")
    wire = Wire(reply())
    async with WaveSpeed(transport=wire) as wave:
        await wave.result("t1")
    assert wire.sent[0].headers["authorization"] == f"Bearer {KEY}"
    assert wire.sent[0].url.host == "127.0.0.1"


@pytest.mark.parametrize(
    ("given", "setting"),
    [
        ({}, "WAVESPEED_API_KEY"),
        ({"api_key": "a b"}, "WAVESPEED_API_KEY"),
        ({"api_key": KEY, "base_url": "http://example.com"}, "WAVESPEED_BASE_URL"),
        ({"api_key": KEY, "webhook_url": "http://example.com"}, "WAVEHOOK_PUBLIC_URL"),
    ],
)
def test_bad_settings(given: dict[str, Any], setting: str) -> None:
    """F15: what cannot work is refused when the client is made, with the setting's name."""
    with pytest.raises(errors.BadSettings) as caught:
        WaveSpeed(**given)
    assert caught.value.setting == setting


async def test_outside_of_its_context_it_says_how_to_use_it() -> None:
    """Before and after `async with` nothing is sent."""
    wire = Wire(reply())
    wave = client(wire)
    with pytest.raises(RuntimeError, match="async with"):
        await wave.result("t1")
    async with wave:
        pass
    with pytest.raises(RuntimeError, match="async with"):
        await wave.submit(KLING, INPUT)
    await wave.__aexit__(None, None, None)
    assert wire.sent == []


async def test_logs_hold_no_token(caplog: pytest.LogCaptureFixture) -> None:
    """F16: no log line has the key, the sealed context or the input; others' lines stay."""
    caplog.set_level(logging.DEBUG)
    wire = Wire(reply(503, {"message": PROMPT}), reply())
    async with client(wire) as wave:
        with pytest.raises(errors.SubmissionUnknown):
            await wave.submit(KLING, INPUT, context="x")
        await wave.result("t1")
    token = wire.sent[0].url.params["webhook"].rpartition("/")[2]
    assert f"POST {BASE_URL} " in caplog.text
    assert not any(secret in caplog.text for secret in (KEY, PROMPT, token))
    logging.getLogger("httpx").info("others' %s", httpx.URL("https://a/?webhook=x"))
    assert "others' https://a/?webhook=x" in caplog.text


async def test_an_error_with_the_request_holds_no_token() -> None:
    """F16: what quotes or represents the request does not show its query."""
    wire = Wire(reply(503, {}))
    async with client(wire) as wave:
        with pytest.raises(errors.SubmissionUnknown):
            await wave.submit(KLING, INPUT, context="x")
    url = wire.sent[0].url
    token = url.params["webhook"].rpartition("/")[2]
    assert str(url) == BASE_URL
    assert token not in repr(wire.sent[0]) + repr(url)
    assert str(url.join("/a?b")) == f"{BASE_URL}/a?b"


@pytest.mark.parametrize(
    "failure",
    [
        reply(400, {"code": 1401, "message": f"bad prompt: {PROMPT} for {KEY}"}),
        reply(401, {"error": KEY}),
        reply(429, {"detail": PROMPT}),
        reply(500, {"message": PROMPT}),
        reply(200, {"code": 200, "data": PROMPT}),
        httpx.Response(200, content=PROMPT.encode()),
        httpx.ReadError(PROMPT),
        httpx.ConnectError(KEY),
        httpx.RemoteProtocolError(PROMPT),
    ],
    ids=range(9),
)
async def test_errors_hold_no_secrets(failure: httpx.Response | Exception) -> None:
    """F16: neither text, repr nor traceback of an error has key, prompt, token or body."""
    wire = Wire(failure)
    async with client(wire) as wave:
        for call in (lambda: wave.submit(KLING, INPUT, context="x"), lambda: wave.result("t1")):
            with pytest.raises(errors.SubmitterError) as caught:
                await call()
            lines = "".join(traceback.format_exception(caught.value))
            shown = f"{caught.value} {caught.value!r} {lines}"
            token = wire.sent[0].url.params["webhook"].rpartition("/")[2]
            assert not any(secret in shown for secret in (KEY, PROMPT, token))


async def test_faults_hold_no_prompt() -> None:
    """F16: the error about a bad input does not repeat it."""
    async with client(Wire(reply())) as wave:
        with pytest.raises(errors.BadInput) as caught:
            await wave.submit(
                KLING, prompt=PROMPT * 200, image=PROMPT, context={"a": [PROMPT * 90]}
            )
    assert PROMPT not in f"{caught.value} {caught.value!r}"
    assert len(caught.value.faults) == 3

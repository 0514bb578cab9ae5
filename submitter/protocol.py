"""The API's protocol: requests are built and answers are read here, without any I/O.

Answers come as `{"code": 200, "message": …, "data": …}`, so that both the HTTP status and `code`
count; the bodies of errors have four other shapes as well, or are no JSON at all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import quote

from submitter.address import base_fault
from submitter.errors import (
    ApiError,
    BadInput,
    BadSettings,
    Fault,
    SubmissionUnknown,
    Unavailable,
)
from submitter.prediction import JSON, Prediction
from submitter.refusals import refusal

_MAX_ID = 256

_SEGMENT = re.compile(r"(?!\.\.?(?:/|\Z))[A-Za-z0-9._-]+")

# The API's own paths stand where models do: `predictions/delete` would not be a model.
_OWN_PATHS = frozenset({"balance", "media", "model", "models", "predictions", "webhook"})


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request; its `repr` shows neither key nor token nor input."""

    method: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    content: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP response; names of headers in lower case."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Api:
    """Builds the requests.

    Attributes:
        base_url: such as `https://api.wavespeed.ai`.
        key: the API key.
    """

    base_url: str
    key: str = field(repr=False)

    def __post_init__(self) -> None:
        reason = base_fault(self.base_url)
        if reason:
            raise BadSettings("WAVESPEED_BASE_URL", reason)
        # An HTTP library would repeat the whole header in its error.
        if not re.fullmatch(r"[!-~]+", self.key):
            raise BadSettings("WAVESPEED_API_KEY", "is empty or holds characters that no key has")

    def submit(self, model: str, input: Mapping[str, JSON], webhook: str | None = None) -> Request:
        """Ask for a new task. It is billed, and nothing marks a repetition: send it once.

        Args:
            model: the model's id; its slashes are part of the path.
            input: strict JSON, checked before.
            webhook: where the result is to be sent.

        Raises:
            BadInput: no model can have this id.
        """
        fault = model_fault(model)
        if fault:
            raise BadInput([fault])
        query = f"?webhook={quote(webhook, safe='')}" if webhook else ""
        content = json.dumps(input, ensure_ascii=False, allow_nan=False).encode()
        return self._request("POST", f"{model}{query}", content)

    def result(self, task_id: str) -> Request:
        """Ask how a task stands.

        Raises:
            BadInput: no task can have this id.
        """
        if len(task_id) > _MAX_ID or not _SEGMENT.fullmatch(task_id):
            raise BadInput([Fault("task_id", "is no task id: letters, digits, `.`, `_`, `-`")])
        return self._request("GET", f"predictions/{task_id}/result")

    def webhook_secret(self) -> Request:
        """Ask for the secret that webhooks for this key are signed with."""
        return self._request("GET", "webhook/secret")

    def _request(self, method: str, path: str, content: bytes | None = None) -> Request:
        headers = {"authorization": f"Bearer {self.key}", "accept": "application/json"}
        if content is not None:
            headers["content-type"] = "application/json"
        return Request(method, f"{self.base_url.rstrip('/')}/api/v3/{path}", headers, content)


def model_fault(model: str) -> Fault | None:
    """What keeps a text from being a model's id, if anything."""
    segments = model.split("/")
    if len(model) > _MAX_ID or not all(map(_SEGMENT.fullmatch, segments)):
        return Fault("model", "is no model id, such as kwaivgi/kling-v2.1-i2v-standard")
    if segments[0] in _OWN_PATHS:
        return Fault("model", "is a path of the API itself, not a model")
    return None


def read_submission(answer: Answer, *, model: str, sent_at: float, now: float) -> Prediction:
    """Read the answer to `Api.submit`.

    Args:
        answer: as it came.
        model: the model's id.
        sent_at: Unix seconds, when the request went out.
        now: Unix seconds.

    Raises:
        ApiError: the API refused; nothing was created.
        SubmissionUnknown: the answer does not tell whether there is a task.
    """
    try:
        data = _data(answer, now)
    except Unavailable as error:
        raise SubmissionUnknown(model, sent_at, error.reason, status=error.status) from None
    except ApiError as error:
        if _created_nothing(error, answer.body):
            raise
        reason = f"HTTP {error.status}, code {error.code}"
        raise SubmissionUnknown(model, sent_at, reason, status=error.status) from None
    prediction = Prediction.parse(data)
    if prediction is None:
        reason = "the answer names no task"
        raise SubmissionUnknown(model, sent_at, reason, status=answer.status)
    return prediction


def read_prediction(answer: Answer, *, now: float) -> Prediction:
    """Read the answer to `Api.result`; a failed task is an answer like any other.

    Raises:
        ApiError: the API refused.
        Unavailable: worth asking again.
    """
    prediction = Prediction.parse(_data(answer, now))
    if prediction is None:
        raise ApiError(status=answer.status, advice="the API's answer holds no prediction")
    return prediction


def read_secret(answer: Answer, *, now: float) -> str:
    """Read the answer to `Api.webhook_secret`, in each of the shapes that were seen.

    Raises:
        ApiError: the API refused, or answered without a secret.
        Unavailable: worth asking again.
    """
    data = _data(answer, now)
    secret = data.get("secret") if isinstance(data, dict) else data
    if not (isinstance(secret, str) and re.fullmatch(r"[!-~]{1,512}", secret)):
        raise ApiError(status=answer.status, advice="the API's answer holds no webhook secret")
    return secret


def _created_nothing(error: ApiError, body: bytes) -> bool:
    """Whether a refused submission has left no task behind."""
    data, _ = _json(body)
    if isinstance(data, dict) and Prediction.parse(data.get("data")):
        return False
    if error.status >= 300:
        return True
    # Around a 200 only a code that blames the request does; from 1403 on, something ran.
    return isinstance(error.code, int) and (400 <= error.code < 500 or 1000 <= error.code < 1403)


def _data(answer: Answer, now: float) -> JSON:
    """What the envelope holds, or the whole body where there is no envelope."""
    body, readable = _json(answer.body)
    envelope = body if isinstance(body, dict) else {}
    number = envelope.get("code")
    code = number if isinstance(number, int) and not isinstance(number, bool) else None
    if not 200 <= answer.status < 300:
        raise refusal(answer.status, answer.headers, envelope, code, now)
    if not readable:
        raise Unavailable("its answer is no JSON", status=answer.status)
    if "data" not in envelope and Prediction.parse(body):
        # A bare prediction: its `code` is about the task, not about the request.
        return body
    if code is not None and not 200 <= code < 300 and code != 0:
        raise refusal(answer.status, answer.headers, envelope, code, now)
    return envelope.get("data", body)


def _json(body: bytes) -> tuple[JSON, bool]:
    try:
        return cast("JSON", json.loads(body)), True
    # RecursionError: depth; ValueError: the rest, also UnicodeError and too long integers.
    except (ValueError, RecursionError):
        return None, False

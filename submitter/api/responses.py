"""Responses of the API, parsed without I/O: into values, or into typed errors.

A body is `{"code": 200, "message": …, "data": …}`, so both the HTTP status and `code` count. Error
bodies have four other shapes, or are not JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, cast

from submitter.api.models import Model, Price, dollars
from submitter.api.urls import url_fault
from submitter.errors import (
    ApiError,
    AuthFailed,
    InsufficientBalance,
    NotFound,
    RateLimited,
    SubmissionUnknown,
    Unavailable,
)
from submitter.prediction import JSON, Prediction

_MAX_MESSAGE_CHARS = 300

_ERROR_CLASSES: dict[int, type[ApiError]] = {
    401: AuthFailed,
    402: InsufficientBalance,
    403: AuthFailed,
    404: NotFound,
    429: RateLimited,
}

_INSUFFICIENT_BALANCE = re.compile(r"(?i)insufficient[ _-](?:account[ _-])?(?:balance|credit|fund)")


MAX_RETRY_AFTER_S = 86400.0
"""Longest wait that a Retry-After header can ask for; longer ones are shortened to it."""


def retry_after(value: str, now: float) -> float | None:
    """Seconds to wait from a Retry-After header: a number of seconds or a date; None if invalid.

    https://www.rfc-editor.org/rfc/rfc9110#field.retry-after

    Args:
        value: the header's value.
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
    # OverflowError: the date is out of the platform's range.
    except (ValueError, OverflowError):
        return None
    return min(max(moment - now, 0.0), MAX_RETRY_AFTER_S)


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
    if code is not None and (kind < 300 or (kind < 500 and code in _ERROR_CLASSES)):
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
    if _INSUFFICIENT_BALANCE.search(f"{shown} {message}"):
        return InsufficientBalance(**told)
    if 300 <= kind < 400:
        return ApiError(advice="the API's address has moved; check WAVESPEED_BASE_URL", **told)
    return _ERROR_CLASSES.get(kind, ApiError)(**told)


def _message(envelope: Mapping[str, JSON]) -> str:
    for name in ("message", "error", "detail"):
        value = envelope.get(name)
        if isinstance(value, list) and value:
            value = value[0]
        if isinstance(value, dict):
            value = value.get("message", value.get("msg"))
        if isinstance(value, str) and value:
            line = "".join(c if c.isprintable() else " " for c in value[:_MAX_MESSAGE_CHARS])
            return line.strip()
    return ""


def _word(value: JSON) -> str | None:
    """A textual code: shown in the error's text, so that it may be a word and nothing more."""
    return (
        value if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_.-]{1,40}", value) else None
    )


TASK_ID = re.compile(r"(?!\.\.?\Z)[A-Za-z0-9._-]{1,256}")
"""What can stand as one segment of a path."""

_MAX_HEADERS = 50
_MAX_HEADER_CHARS = 4096
_MAX_URL_CHARS = 8192

# HTTP itself says these, and the API key is not the storage's business.
_FORBIDDEN_HEADERS = frozenset(
    {"authorization", "connection", "content-length", "cookie", "host", "transfer-encoding"}
)


@dataclass(frozen=True, slots=True)
class ApiResponse:
    """One HTTP response; names of headers in lower case."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """One page of the history.

    Attributes:
        predictions: what could be read of it, newest first.
        size: how many items it had, readable or not.
    """

    predictions: tuple[Prediction, ...]
    size: int


@dataclass(frozen=True, slots=True)
class UploadTarget:
    """Where a file is to be put.

    Attributes:
        url: takes the bytes, by PUT; holds its own permission.
        headers: to be sent exactly so.
        download_url: what models are given.
    """

    url: str = field(repr=False)
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    download_url: str


def read_submission(answer: ApiResponse, *, model: str, sent_at: float, now: float) -> Prediction:
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
    prediction = _prediction(data)
    if prediction is None:
        reason = "the answer names no task"
        raise SubmissionUnknown(model, sent_at, reason, status=answer.status)
    return prediction


def read_prediction(answer: ApiResponse, *, task_id: str, now: float) -> Prediction:
    """Read the answer to `Api.result`; a failed task is an answer like any other.

    Raises:
        ApiError: the API refused, or answered for another task.
        Unavailable: worth asking again.
    """
    prediction = _prediction(_data(answer, now))
    if prediction is None:
        raise _nothing(answer, "prediction")
    if prediction.id != task_id:
        raise ApiError(status=answer.status, advice="the API's answer is about another task")
    return prediction


def read_page(answer: ApiResponse, *, now: float) -> HistoryPage:
    """Read the answer to `Api.history`; what is no prediction is passed over.

    Raises:
        ApiError: the API refused, or answered without a list.
        Unavailable: worth asking again.
    """
    items = _list(answer, now, "list of predictions")
    return HistoryPage(tuple(filter(None, map(_prediction, items))), len(items))


def read_models(answer: ApiResponse, *, now: float) -> list[Model]:
    """Read the answer to `Api.models`; what is no model is passed over.

    Raises:
        ApiError: the API refused, or answered without a list.
        Unavailable: worth asking again.
    """
    return list(filter(None, map(Model.parse, _list(answer, now, "list of models"))))


def read_price(answer: ApiResponse, *, now: float) -> Price:
    """Read the answer to `Api.price`.

    Raises:
        ApiError: the API refused, or answered without a price.
        Unavailable: worth asking again.
    """
    price = Price.parse(_data(answer, now))
    if price is None:
        raise _nothing(answer, "price")
    return price


def read_balance(answer: ApiResponse, *, now: float) -> float:
    """Read the answer to `Api.balance`: USD, below zero where the account owes.

    Raises:
        ApiError: the API refused, or answered without a balance.
        Unavailable: worth asking again.
    """
    data = _data(answer, now)
    balance = dollars(data.get("balance") if isinstance(data, dict) else data)
    if balance is None:
        raise _nothing(answer, "balance")
    return balance


def read_upload_target(answer: ApiResponse, *, now: float) -> UploadTarget:
    """Read the answer to `Api.upload`.

    Raises:
        ApiError: the API refused, or named no place that the bytes can be sent to.
        Unavailable: worth asking again.
    """
    data = _data(answer, now)
    told = data if isinstance(data, dict) else {}
    upload = told.get("upload")
    place = upload if isinstance(upload, dict) else {}
    url, download_url = _url(place.get("url")), _url(told.get("download_url"))
    headers = _headers(place.get("headers"))
    if url is None or download_url is None or headers is None:
        raise _nothing(answer, "place for an upload that can be used")
    return UploadTarget(url, headers, download_url)


def read_stored(answer: ApiResponse, *, now: float) -> None:
    """Read what the storage answers to the bytes of an upload; it is not the API.

    Raises:
        ApiError: it refused them.
        Unavailable: worth putting them there again.
    """
    if 200 <= answer.status < 300:
        return
    wait = retry_after(answer.headers.get("retry-after", ""), now)
    if answer.status == 429 or answer.status >= 500:
        reason = f"HTTP {answer.status} from its storage"
        raise Unavailable(reason, status=answer.status, retry_after=wait)
    raise ApiError(status=answer.status, advice="the API's storage refused the upload")


def read_done(answer: ApiResponse, *, now: float) -> None:
    """Read an answer that needs to hold nothing, as that to `Api.delete`.

    Raises:
        ApiError: the API refused.
        Unavailable: worth asking again.
    """
    if answer.body.strip() or not 200 <= answer.status < 300:
        _data(answer, now)


def read_secret(answer: ApiResponse, *, now: float) -> str:
    """Read the answer to `Api.webhook_secret`, in each of the shapes that were seen.

    Raises:
        ApiError: the API refused, or answered without a secret.
        Unavailable: worth asking again.
    """
    data = _data(answer, now)
    secret = data.get("secret") if isinstance(data, dict) else data
    if not (isinstance(secret, str) and re.fullmatch(r"[!-~]{1,512}", secret)):
        raise _nothing(answer, "webhook secret")
    return secret


def _prediction(data: JSON) -> Prediction | None:
    """A prediction that can be asked for again."""
    prediction = Prediction.parse(data)
    return prediction if prediction and TASK_ID.fullmatch(prediction.id) else None


def _list(answer: ApiResponse, now: float, what: str) -> list[JSON]:
    """The items of a list, whether it stands alone or as `items`."""
    data = _data(answer, now)
    items = data.get("items") if isinstance(data, dict) else data
    # An empty list is null where nobody made one.
    if items is None and isinstance(data, dict) and "items" in data:
        return []
    if not isinstance(items, list):
        raise _nothing(answer, what)
    return items


def _url(value: JSON) -> str | None:
    if not isinstance(value, str) or not value.isascii() or len(value) > _MAX_URL_CHARS:
        return None
    return None if url_fault(value) else value


def _headers(value: JSON) -> tuple[tuple[str, str], ...] | None:
    """Names with a value or several; None where HTTP cannot carry them."""
    if value is None:
        return ()
    if not isinstance(value, dict) or len(value) > _MAX_HEADERS:
        return None
    found: list[tuple[str, str]] = []
    for name, given in value.items():
        if name.lower() in _FORBIDDEN_HEADERS:
            continue
        for text in given if isinstance(given, list) else [given]:
            if not (isinstance(text, str) and _fits(name, text)):
                return None
            found.append((name, text))
    return tuple(found) if len(found) <= _MAX_HEADERS else None


def _fits(name: str, text: str) -> bool:
    # https://www.rfc-editor.org/rfc/rfc9110#section-5.5
    return bool(
        re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}", name)
        and re.fullmatch(r"(?:[!-~](?:[ -~]*[!-~])?)?", text)
        and len(text) <= _MAX_HEADER_CHARS
    )


def _nothing(answer: ApiResponse, what: str) -> ApiError:
    return ApiError(status=answer.status, advice=f"the API's answer holds no {what}")


def _created_nothing(error: ApiError, body: bytes) -> bool:
    """Whether a refused submission has left no task behind."""
    data, _ = _json(body)
    if isinstance(data, dict) and (Prediction.parse(data.get("data")) or Prediction.parse(data)):
        return False
    if error.status >= 300:
        return True
    # Around a 200 only a code that blames the request does; from 1403 on, something ran.
    return isinstance(error.code, int) and (400 <= error.code < 500 or 1000 <= error.code < 1403)


def _data(answer: ApiResponse, now: float) -> JSON:
    """What the envelope holds, or the whole body where there is no envelope."""
    body, readable = _json(answer.body)
    envelope = body if isinstance(body, dict) else {}
    number = envelope.get("code")
    # A longer one would be shown whole.
    usable = isinstance(number, int) and not isinstance(number, bool) and abs(number) < 10**9
    code = number if isinstance(number, int) and usable else None
    if not 200 <= answer.status < 300:
        raise refusal(answer.status, answer.headers, envelope, code, now)
    if not readable:
        raise Unavailable("its response is not JSON", status=answer.status)
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

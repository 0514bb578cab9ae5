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
    """The error for a response that is not a success.

    Args:
        status: the HTTP status.
        headers: names in lower case.
        envelope: the body, if it is a JSON object, else empty.
        code: its outer `code`, if any.
        now: Unix seconds.
    """
    wait = retry_after(headers.get("retry-after", ""), now)
    kind = status
    # A 200 may wrap an error; in a 4xx the body's code is more precise.
    if code is not None and (kind < 300 or (kind < 500 and code in _ERROR_CLASSES)):
        kind = code
    # 408: the API says that it did not receive the whole request.
    if kind == 408 or 500 <= kind < 600 or 5000 <= kind < 6000:
        reason = f"HTTP {status}" + (f", code {code}" if code is not None else "")
        return Unavailable(reason, status=status, retry_after=wait)
    message = _message(envelope)
    shown = code if code is not None else _word(envelope.get("error_code"))
    details: dict[str, Any] = {"status": status, "code": shown, "message": message}
    if kind == 429:
        return RateLimited(retry_after=wait, **details)
    if _INSUFFICIENT_BALANCE.search(f"{shown} {message}"):
        return InsufficientBalance(**details)
    if 300 <= kind < 400:
        return ApiError(advice="the API redirects; check WAVESPEED_BASE_URL", **details)
    return _ERROR_CLASSES.get(kind, ApiError)(**details)


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
    """A textual code; only a plain word, because it is shown in the error's text."""
    return (
        value if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_.-]{1,40}", value) else None
    )


TASK_ID = re.compile(r"(?!\.\.?\Z)[A-Za-z0-9._-]{1,256}")
"""Task id that is safe as one segment of a path."""

_MAX_HEADERS = 50
_MAX_HEADER_CHARS = 4096
_MAX_URL_CHARS = 8192

# Set by the HTTP client itself, or secret from the storage (the API key).
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
        predictions: its readable items, newest first.
        size: number of its items, readable or not.
    """

    predictions: tuple[Prediction, ...]
    size: int


@dataclass(frozen=True, slots=True)
class UploadTarget:
    """Destination of an upload.

    Attributes:
        url: presigned; takes the bytes by PUT.
        headers: to be sent unchanged.
        download_url: URL for models.
    """

    url: str = field(repr=False)
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    download_url: str


def read_submission(response: ApiResponse, *, model: str, sent_at: float, now: float) -> Prediction:
    """Parse the response to `ApiRequests.submit`.

    Args:
        response: of the API.
        model: the model's id.
        sent_at: Unix seconds at which the request was sent.
        now: Unix seconds.

    Raises:
        ApiError: the API refused; nothing was created.
        SubmissionUnknown: the task may exist.
    """
    try:
        data = _data(response, now)
    except Unavailable as error:
        raise SubmissionUnknown(model, sent_at, error.reason, status=error.status) from None
    except ApiError as error:
        if _created_nothing(error, response.body):
            raise
        reason = f"HTTP {error.status}, code {error.code}"
        raise SubmissionUnknown(model, sent_at, reason, status=error.status) from None
    prediction = _prediction(data)
    if prediction is None:
        reason = "the response has no task"
        raise SubmissionUnknown(model, sent_at, reason, status=response.status)
    return prediction


def read_prediction(response: ApiResponse, *, task_id: str, now: float) -> Prediction:
    """Parse the response to `ApiRequests.result`; a failed task does not raise.

    Raises:
        ApiError: the API refused, or sent another task.
        Unavailable: the request may be retried.
    """
    prediction = _prediction(_data(response, now))
    if prediction is None:
        raise _nothing(response, "prediction")
    if prediction.id != task_id:
        raise ApiError(status=response.status, advice="the API's response is about another task")
    return prediction


def read_page(response: ApiResponse, *, now: float) -> HistoryPage:
    """Parse the response to `ApiRequests.history`; unreadable items are skipped.

    Raises:
        ApiError: the API refused, or sent no list.
        Unavailable: the request may be retried.
    """
    items = _list(response, now, "list of predictions")
    return HistoryPage(tuple(filter(None, map(_prediction, items))), len(items))


def read_models(response: ApiResponse, *, now: float) -> list[Model]:
    """Parse the response to `ApiRequests.models`; unreadable items are skipped.

    Raises:
        ApiError: the API refused, or sent no list.
        Unavailable: the request may be retried.
    """
    return list(filter(None, map(Model.parse, _list(response, now, "list of models"))))


def read_price(response: ApiResponse, *, now: float) -> Price:
    """Parse the response to `ApiRequests.price`.

    Raises:
        ApiError: the API refused, or sent no price.
        Unavailable: the request may be retried.
    """
    price = Price.parse(_data(response, now))
    if price is None:
        raise _nothing(response, "price")
    return price


def read_balance(response: ApiResponse, *, now: float) -> float:
    """Parse the response to `ApiRequests.balance`: USD, negative if the account owes.

    Raises:
        ApiError: the API refused, or sent no balance.
        Unavailable: the request may be retried.
    """
    data = _data(response, now)
    balance = dollars(data.get("balance") if isinstance(data, dict) else data)
    if balance is None:
        raise _nothing(response, "balance")
    return balance


def read_upload_target(response: ApiResponse, *, now: float) -> UploadTarget:
    """Parse the response to `ApiRequests.upload`.

    Raises:
        ApiError: the API refused, or sent no usable URLs.
        Unavailable: the request may be retried.
    """
    data = _data(response, now)
    details = data if isinstance(data, dict) else {}
    upload = details.get("upload")
    target = upload if isinstance(upload, dict) else {}
    url, download_url = _url(target.get("url")), _url(details.get("download_url"))
    headers = _headers(target.get("headers"))
    if url is None or download_url is None or headers is None:
        raise _nothing(response, "usable upload target")
    return UploadTarget(url, headers, download_url)


def read_stored(response: ApiResponse, *, now: float) -> None:
    """Parse the response of the upload storage, which is not the API.

    Raises:
        ApiError: it refused the upload.
        Unavailable: the upload may be retried.
    """
    if 200 <= response.status < 300:
        return
    wait = retry_after(response.headers.get("retry-after", ""), now)
    if response.status == 429 or response.status >= 500:
        reason = f"HTTP {response.status} from its storage"
        raise Unavailable(reason, status=response.status, retry_after=wait)
    raise ApiError(status=response.status, advice="the API's storage refused the upload")


def read_done(response: ApiResponse, *, now: float) -> None:
    """Parse a response that may be empty, as that to `ApiRequests.delete`.

    Raises:
        ApiError: the API refused.
        Unavailable: the request may be retried.
    """
    if response.body.strip() or not 200 <= response.status < 300:
        _data(response, now)


def read_secret(response: ApiResponse, *, now: float) -> str:
    """Parse the response to `ApiRequests.webhook_secret`, in each known shape.

    Raises:
        ApiError: the API refused, or sent no secret.
        Unavailable: the request may be retried.
    """
    data = _data(response, now)
    secret = data.get("secret") if isinstance(data, dict) else data
    if not (isinstance(secret, str) and re.fullmatch(r"[!-~]{1,512}", secret)):
        raise _nothing(response, "webhook secret")
    return secret


def _prediction(data: JSON) -> Prediction | None:
    """A prediction with a valid task id."""
    prediction = Prediction.parse(data)
    return prediction if prediction and TASK_ID.fullmatch(prediction.id) else None


def _list(response: ApiResponse, now: float, what: str) -> list[JSON]:
    """The items of a bare list, or of an object's `items`."""
    data = _data(response, now)
    items = data.get("items") if isinstance(data, dict) else data
    # An empty list may be null.
    if items is None and isinstance(data, dict) and "items" in data:
        return []
    if not isinstance(items, list):
        raise _nothing(response, what)
    return items


def _url(value: JSON) -> str | None:
    if not isinstance(value, str) or not value.isascii() or len(value) > _MAX_URL_CHARS:
        return None
    return None if url_fault(value) else value


def _headers(value: JSON) -> tuple[tuple[str, str], ...] | None:
    """Header names with one value or several; None if HTTP does not allow them."""
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


def _nothing(response: ApiResponse, what: str) -> ApiError:
    return ApiError(status=response.status, advice=f"the API's response has no {what}")


def _created_nothing(error: ApiError, body: bytes) -> bool:
    """Whether a refused submit certainly created no task."""
    data, _ = _json(body)
    if isinstance(data, dict) and (Prediction.parse(data.get("data")) or Prediction.parse(data)):
        return False
    if error.status >= 300:
        return True
    # Inside a 200 only a code that blames the request is certain; from 1403 on, a task ran.
    return isinstance(error.code, int) and (400 <= error.code < 500 or 1000 <= error.code < 1403)


def _data(response: ApiResponse, now: float) -> JSON:
    """The `data` of the envelope, or the whole body if it has no envelope."""
    body, readable = _json(response.body)
    envelope = body if isinstance(body, dict) else {}
    number = envelope.get("code")
    # A longer one would make the error's text long.
    usable = isinstance(number, int) and not isinstance(number, bool) and abs(number) < 10**9
    code = number if isinstance(number, int) and usable else None
    if not 200 <= response.status < 300:
        raise refusal(response.status, response.headers, envelope, code, now)
    if not readable:
        raise Unavailable("its response is not JSON", status=response.status)
    if "data" not in envelope and Prediction.parse(body):
        # A bare prediction: its `code` is about the task, not about the request.
        return body
    if code is not None and not 200 <= code < 300 and code != 0:
        raise refusal(response.status, response.headers, envelope, code, now)
    return envelope.get("data", body)


def _json(body: bytes) -> tuple[JSON, bool]:
    try:
        return cast("JSON", json.loads(body)), True
    # RecursionError: depth; ValueError: the rest, also UnicodeError and too long integers.
    except (ValueError, RecursionError):
        return None, False

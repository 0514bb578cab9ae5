"""Requests of the API, built without I/O; `responses` parses the responses."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

from submitter.api.responses import TASK_ID, UploadTarget
from submitter.api.urls import base_fault
from submitter.errors import BadInput, BadSettings, Fault
from submitter.prediction import JSON
from submitter.submit.json_check import json_faults
from submitter.timestamps import rfc3339_microseconds

MAX_UPLOAD_BYTES = 200 * 1024 * 1024
"""Largest file that the API takes."""

MAX_PAGE_SIZE = 100
"""Largest page of the history."""

_MAX_MODEL_ID_CHARS = 256

_SEGMENT = re.compile(r"(?!\.\.?(?:/|\Z))[A-Za-z0-9._-]+")

# The API's own paths begin where a model id would: `predictions/delete` is not a model.
_OWN_PATHS = frozenset({"balance", "media", "model", "models", "predictions", "webhook"})

_YEAR_10000 = 253_402_300_800.0


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """One HTTP request; its `repr` hides key, token and input."""

    method: str
    url: str = field(repr=False)
    headers: Sequence[tuple[str, str]] = field(repr=False)
    content: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class HistoryFilters:
    """Filters of the history; None: no filter.

    Attributes:
        model: the model's id.
        status: one of `Status`.
        created_after: Unix seconds.
        created_before: Unix seconds.
    """

    model: str | None = None
    status: str | None = None
    created_after: float | None = None
    created_before: float | None = None


@dataclass(frozen=True, slots=True)
class ApiRequests:
    """Builder of requests.

    Attributes:
        base_url: such as `https://api.wavespeed.ai`.
        key: the API key.
        client_headers: headers that identify this client.
    """

    base_url: str
    key: str = field(repr=False)
    client_headers: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        reason = base_fault(self.base_url)
        if reason:
            raise BadSettings("WAVESPEED_BASE_URL", reason)
        # An HTTP library would quote the whole header in its error.
        if not re.fullmatch(r"[!-~]+", self.key):
            raise BadSettings(
                "WAVESPEED_API_KEY", "must be printable ASCII without spaces, and not empty"
            )

    def submit(
        self, model: str, input: Mapping[str, JSON], webhook: str | None = None
    ) -> ApiRequest:
        """Request that creates a task. It is billed and the API knows no duplicates: send it once.

        Args:
            model: the model's id; its slashes are part of the path.
            input: the model's input.
            webhook: URL for the result.

        Raises:
            BadInput: the model id is invalid, or the input is not JSON.
        """
        _check(model, input)
        query = f"?webhook={quote(webhook, safe='')}" if webhook else ""
        return self._request("POST", f"{model}{query}", dict(input))

    def result(self, task_id: str) -> ApiRequest:
        """Request for the state of a task.

        Raises:
            BadInput: the task id is invalid.
        """
        _check_ids([task_id])
        return self._request("GET", f"predictions/{task_id}/result")

    def history(self, page: int, page_size: int, filters: HistoryFilters) -> ApiRequest:
        """Request for one page of the tasks of the last 7 days, newest first.

        Args:
            page: from 1.
            page_size: 1 to 100.
            filters: of the tasks.

        Raises:
            BadInput: the page size or a filter is invalid.
        """
        faults: list[Fault] = []
        if not 1 <= page_size <= MAX_PAGE_SIZE:
            faults.append(Fault("page_size", f"must be from 1 to {MAX_PAGE_SIZE}"))
        if filters.model is not None:
            faults += filter(None, [model_fault(filters.model)])
        if filters.status is not None and not re.fullmatch(r"[\w.-]{1,64}", filters.status):
            faults.append(Fault("status", "is not a status; example: completed"))
        body: dict[str, JSON] = {"page": page, "page_size": page_size}
        for name in ("model", "status"):
            if (text := getattr(filters, name)) is not None:
                body[name] = text
        for name in ("created_after", "created_before"):
            seconds = getattr(filters, name)
            if seconds is None:
                continue
            if not 0 <= seconds < _YEAR_10000:
                faults.append(Fault(name, "must be Unix seconds, such as time.time() - 3600"))
            else:
                body[name] = rfc3339_microseconds(seconds)
        if faults:
            raise BadInput(faults)
        return self._request("POST", "predictions", body)

    def delete(self, task_ids: Sequence[str]) -> ApiRequest:
        """Request that deletes tasks and their outputs.

        Raises:
            BadInput: a task id is invalid.
        """
        _check_ids(task_ids)
        return self._request("POST", "predictions/delete", {"ids": list(task_ids)})

    def models(self) -> ApiRequest:
        """Request for all models, with their input schemas."""
        return self._request("GET", "models")

    def price(self, model: str, input: Mapping[str, JSON]) -> ApiRequest:
        """Request for the price of a task.

        Raises:
            BadInput: the model id is invalid, or the input is not JSON.
        """
        _check(model, input)
        return self._request("POST", "model/price", {"model_id": model, "inputs": dict(input)})

    def balance(self) -> ApiRequest:
        """Request for the account's balance."""
        return self._request("GET", "balance")

    def upload(self, filename: str, size: int, content_type: str) -> ApiRequest:
        """Request for an upload target.

        Args:
            filename: without folders.
            size: bytes.
            content_type: such as `image/png`.

        Raises:
            BadInput: the API does not take such a file.
        """
        faults: list[Fault] = []
        if not re.fullmatch(r"(?!\.)[^/\\]{1,255}", filename) or not filename.isprintable():
            faults.append(Fault("filename", "is not a file name, such as first.png"))
        if not 1 <= size <= MAX_UPLOAD_BYTES:
            faults.append(Fault("data", f"is {size} bytes; the API takes 1 to {MAX_UPLOAD_BYTES}"))
        if not re.fullmatch(r"[\w.+-]{1,64}/[\w.+-]{1,64}", content_type, re.ASCII):
            faults.append(Fault("content_type", "is not a media type, such as image/png"))
        if faults:
            raise BadInput(faults)
        body: dict[str, JSON] = {"filename": filename, "size": size, "content_type": content_type}
        return self._request("POST", "media/uploads", body)

    def webhook_secret(self) -> ApiRequest:
        """Request for the secret that signs the webhooks of this key."""
        return self._request("GET", "webhook/secret")

    def _request(self, method: str, path: str, body: dict[str, JSON] | None = None) -> ApiRequest:
        headers = [
            ("authorization", f"Bearer {self.key}"),
            ("accept", "application/json"),
            # No other encoding is unpacked: a small response could hold a huge one.
            ("accept-encoding", "gzip"),
            *self.client_headers,
        ]
        content = None
        if body is not None:
            headers.append(("content-type", "application/json"))
            content = json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
        return ApiRequest(method, f"{self.base_url.rstrip('/')}/api/v3/{path}", headers, content)


def put_file(target: UploadTarget, data: bytes) -> ApiRequest:
    """Upload to the target that the API named, with exactly the headers that it named."""
    return ApiRequest("PUT", target.url, target.headers, data)


def model_fault(model: str) -> Fault | None:
    """The fault of a model id, or None."""
    segments = model.split("/")
    if len(model) > _MAX_MODEL_ID_CHARS or not all(map(_SEGMENT.fullmatch, segments)):
        return Fault("model", "is not a model id, such as kwaivgi/kling-v2.1-i2v-standard")
    if segments[0] in _OWN_PATHS:
        return Fault("model", "is a path of the API itself, not a model")
    return None


def _check(model: str, input: Mapping[str, JSON]) -> None:
    faults = list(filter(None, [model_fault(model)]))
    faults += json_faults(dict(input))[0]
    if faults:
        raise BadInput(faults)


def _check_ids(task_ids: Sequence[str]) -> None:
    advice = "is not a task id; it may have letters, digits, `.`, `_` and `-`"
    faults = [Fault("task_id", advice) for id in task_ids if not TASK_ID.fullmatch(id)]
    if faults:
        raise BadInput(faults)

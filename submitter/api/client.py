"""Client of the API without a ledger: one method per call."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from types import TracebackType
from typing import Self

import httpx

from submitter.api import requests, responses
from submitter.api.models import Model, Price
from submitter.api.requests import ApiRequests, HistoryFilters
from submitter.api.transport import MAX_RESPONSE_BYTES, ApiTransport, NoAnswer
from submitter.errors import (
    BadSettings,
    NotFound,
    RateLimited,
    SubmissionUnknown,
    Unavailable,
)
from submitter.prediction import JSON, Prediction
from submitter.settings import BASE_URL

MAX_HISTORY_PAGES = 10_000
"""Pages of a history that `history` reads by default."""

_MAX_IDS_PER_DELETE = 100


class ApiClient:
    """Client of the WaveSpeedAI API. Use it as `async with ApiClient() as api:`.

    Args:
        api_key: by default `WAVESPEED_API_KEY`.
        base_url: by default `WAVESPEED_BASE_URL`, or the API's own address.
        transport: of httpx, for tests and proxies.
        clock: Unix seconds.
        max_response_bytes: longer responses are not read.

    Raises:
        BadSettings: an argument is invalid.
    """

    def __init__(
        self,
        api_key: str | None = None,
        base_url: str | None = None,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.time,
        max_response_bytes: int = MAX_RESPONSE_BYTES,
    ) -> None:
        key = (api_key or os.environ.get("WAVESPEED_API_KEY", "")).strip()
        if not key:
            raise BadSettings("WAVESPEED_API_KEY", "is not set; make a key at wavespeed.ai")
        base = base_url or os.environ.get("WAVESPEED_BASE_URL") or BASE_URL
        self._api = ApiRequests(base, key, _client_headers())
        self._clock = clock
        self._connection = ApiTransport(transport, clock, max_response_bytes)

    @property
    def base_url(self) -> str:
        """The API's address."""
        return self._api.base_url

    async def __aenter__(self) -> Self:
        await self._connection.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._connection.__aexit__(kind, error, trace)

    async def post(
        self, model: str, input: Mapping[str, JSON], webhook: str | None, *, timeout: float
    ) -> Prediction:
        """Create a task, which is billed; the request is sent exactly once.

        Args:
            model: such as `kwaivgi/kling-v2.1-i2v-standard`.
            input: the model's input; checked only for being JSON.
            webhook: URL for the result; None: no webhook.
            timeout: seconds until the response.

        Returns:
            The task as in the API's response.

        Raises:
            BadInput: the model id is invalid, or the input is not JSON; nothing was sent.
            ApiError: the API refused and created nothing; after RateLimited, send again.
            Unavailable: the API could not be reached; nothing was sent.
            SubmissionUnknown: the task may exist and be billed.
        """
        request = self._api.submit(model, input, webhook)
        sent_at = self._clock()
        response = await self._connection.send(request, timeout=timeout)
        if isinstance(response, NoAnswer):
            if response.sent:
                raise SubmissionUnknown(model, sent_at, response.reason)
            raise Unavailable(f"{response.reason}; nothing was created")
        return responses.read_submission(response, model=model, sent_at=sent_at, now=self._clock())

    async def result(self, task_id: str) -> Prediction:
        """Fetch the state of a task; a failed task does not raise.

        Network errors, 429 and 5xx are retried after growing, jittered waits, here and in all
        other methods except `post` and `result_now`.

        Raises:
            BadInput: the task id is invalid.
            ApiError: the API refused, such as NotFound after 7 days.
            Unavailable: all tries failed.
        """
        read = functools.partial(responses.read_prediction, task_id=task_id)
        return await self._connection.ask(self._api.result(task_id), read)

    async def result_now(self, task_id: str, *, timeout: float) -> Prediction | None:
        """Fetch the state of a task with one request; None if it is not known now.

        Args:
            task_id: the API may answer 404 for a task that was created a moment ago.
            timeout: seconds until the response.

        Raises:
            BadInput: the task id is invalid.
            ApiError: the API refused, such as AuthFailed.
        """
        response = await self._connection.send(self._api.result(task_id), timeout=timeout)
        if isinstance(response, NoAnswer):
            return None
        try:
            return responses.read_prediction(response, task_id=task_id, now=self._clock())
        except (Unavailable, RateLimited, NotFound):
            return None

    async def history(
        self,
        *,
        model: str | None = None,
        status: str | None = None,
        created_after: float | None = None,
        created_before: float | None = None,
        page_size: int = 100,
        max_pages: int = MAX_HISTORY_PAGES,
    ) -> AsyncIterator[Prediction]:
        """Yield the tasks of the last 7 days, newest first, each once.

        Pages are fetched as they are needed. New tasks push others to a later page, and a page
        before the last may be short; so the last page is one that is short and has nothing new.

        Args:
            model: only tasks of this model.
            status: only tasks with this status.
            created_after: Unix seconds.
            created_before: Unix seconds.
            page_size: tasks per request, at most 100.
            max_pages: pages that are read; more are taken for an endless history.

        Raises:
            BadInput: a filter is invalid.
            ApiError: the API refused.
            Unavailable: all tries failed, or the pages do not end.
        """
        filters = HistoryFilters(model, status, created_after, created_before)
        seen: set[str] = set()
        before: tuple[Prediction, ...] | None = None
        for number in range(1, max_pages + 1):
            request = self._api.history(number, page_size, filters)
            page = await self._connection.ask(request, responses.read_page)
            new = {task.id: task for task in page.predictions if task.id not in seen}
            seen.update(new)
            for prediction in new.values():
                yield prediction
            if page.size < page_size and not new:
                return
            if page.predictions == before:
                break
            before = page.predictions
        raise Unavailable("its history has no end; filter by model, status or time")

    async def delete(self, *task_ids: str) -> None:
        """Delete tasks and their outputs from the API; running tasks are not cancelled.

        A lost response is retried, because deleting twice does no harm. So NotFound may mean that
        an earlier try has deleted the task.

        Raises:
            BadInput: a task id is invalid; nothing was sent.
            ApiError: the API refused; of more than 100 ids some may be deleted.
            Unavailable: all tries failed.
        """
        parts = range(0, len(task_ids), _MAX_IDS_PER_DELETE)
        for request in [self._api.delete(task_ids[i : i + _MAX_IDS_PER_DELETE]) for i in parts]:
            await self._connection.ask(request, responses.read_done)

    async def models(self) -> list[Model]:
        """Fetch all models of the API.

        Raises:
            ApiError: the API refused.
            Unavailable: all tries failed.
        """
        return await self._connection.ask(self._api.models(), responses.read_models)

    async def price(self, model: str, input: Mapping[str, JSON]) -> Price:
        """Fetch the price of a task; the request is free.

        Raises:
            BadInput: the model id is invalid, or the input is not JSON.
            ApiError: the API refused.
            Unavailable: all tries failed.
        """
        return await self._connection.ask(self._api.price(model, input), responses.read_price)

    async def balance(self) -> float:
        """Fetch the account's balance in USD; the cheapest way to test a key.

        Raises:
            ApiError: the API refused, such as AuthFailed.
            Unavailable: all tries failed.
        """
        return await self._connection.ask(self._api.balance(), responses.read_balance)

    async def upload(self, data: bytes, *, filename: str, content_type: str) -> str:
        """Upload a file for models to read; the API keeps it for 7 days.

        A failed upload is retried, which is safe: the same bytes go to the same URL.

        Args:
            data: 1 byte to 200 MiB.
            filename: without folders; it may be visible in the URL.
            content_type: such as `image/png`.

        Returns:
            The URL for the model's input.

        Raises:
            BadInput: the API does not take such a file.
            ApiError: the API or its storage refused.
            Unavailable: all tries failed.
        """
        request = self._api.upload(filename, len(data), content_type)
        target = await self._connection.ask(request, responses.read_upload_target)
        await self._connection.ask(requests.put_file(target, data), responses.read_stored)
        return target.download_url

    async def webhook_secret(self) -> str:
        """Fetch the secret that signs the webhooks of this API key.

        Raises:
            ApiError: the API refused, such as AuthFailed.
            Unavailable: all tries failed.
        """
        return await self._connection.ask(self._api.webhook_secret(), responses.read_secret)


@functools.cache
def _client_headers() -> tuple[tuple[str, str], ...]:
    """Headers that identify this client."""
    from importlib import metadata  # not needed to import this module

    version = None
    with contextlib.suppress(metadata.PackageNotFoundError):
        version = metadata.version("wavehook")
    # It is None if the distribution's metadata is damaged, contrary to its type.
    version = version or "unknown"
    return (
        ("user-agent", f"wavehook/{version}"),
        ("x-client-name", "wavehook"),
        ("x-client-version", version),
        ("x-client-os", "windows" if sys.platform == "win32" else sys.platform),
    )

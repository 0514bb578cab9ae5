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
from submitter.api.transport import ApiTransport, NoAnswer
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
"""Pages of a history; one that goes on has no end."""

_MAX_IDS_PER_DELETE = 100


class ApiClient:
    """Client of the WaveSpeedAI API. Use it as `async with Calls() as calls:`.

    Args:
        api_key: by default `WAVESPEED_API_KEY`.
        base_url: by default `WAVESPEED_BASE_URL`, or the API's own address.
        transport: how requests travel, for tests and proxies of one's own.
        clock: gives Unix seconds.

    Raises:
        BadSettings: one of these cannot work.
    """

    def __init__(
        self,
        api_key: str | None = None,
        base_url: str | None = None,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        key = (api_key or os.environ.get("WAVESPEED_API_KEY", "")).strip()
        if not key:
            raise BadSettings("WAVESPEED_API_KEY", "is not set; make a key at wavespeed.ai")
        base = base_url or os.environ.get("WAVESPEED_BASE_URL") or BASE_URL
        self._api = ApiRequests(base, key, _asker())
        self._clock = clock
        self._connection = ApiTransport(transport, clock)

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
        """Ask for a new task, which is billed; the request goes out exactly once.

        Args:
            model: such as `kwaivgi/kling-v2.1-i2v-standard`.
            input: the model's input; only that it is JSON is checked here.
            webhook: where the result is to be sent; None asks for no webhook.
            timeout: seconds for all of it; what is not known then is not known.

        Returns:
            The task as the API describes it in its answer.

        Raises:
            BadInput: no model can have this id, or the input is no JSON; nothing was sent.
            ApiError: the API refused, and created nothing; RateLimited may be sent again.
            Unavailable: the API could not be reached; nothing was sent.
            SubmissionUnknown: the task may exist and be billed; see its docstring.
        """
        request = self._api.submit(model, input, webhook)
        sent_at = self._clock()
        answer = await self._connection.send(request, timeout=timeout)
        if isinstance(answer, NoAnswer):
            if answer.sent:
                raise SubmissionUnknown(model, sent_at, answer.reason)
            raise Unavailable(f"{answer.reason}; nothing was created")
        return responses.read_submission(answer, model=model, sent_at=sent_at, now=self._clock())

    async def result(self, task_id: str) -> Prediction:
        """Ask how a task stands; a failed task is an answer, no error.

        Network errors, 429 and 5xx are tried again with growing, jittered waits, here and in
        every other call except `post`.

        Raises:
            BadInput: no task can have this id.
            ApiError: the API refused, such as NotFound after 7 days.
            Unavailable: it did not answer in any of the tries.
        """
        read = functools.partial(responses.read_prediction, task_id=task_id)
        return await self._connection.ask(self._api.result(task_id), read)

    async def result_now(self, task_id: str, *, timeout: float) -> Prediction | None:
        """Ask once how a task stands; None where that cannot be learnt now.

        Args:
            task_id: of the task; one created a moment ago may not be known everywhere yet.
            timeout: seconds that the answer may take.

        Raises:
            BadInput: no task can have this id.
            ApiError: the API refused, such as AuthFailed.
        """
        answer = await self._connection.send(self._api.result(task_id), timeout=timeout)
        if isinstance(answer, NoAnswer):
            return None
        try:
            return responses.read_prediction(answer, task_id=task_id, now=self._clock())
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
    ) -> AsyncIterator[Prediction]:
        """Go through the tasks of the last 7 days, newest first; each is given once.

        Pages are asked for as they are needed. Tasks that are created meanwhile push others to a
        later page, and a page may hold fewer than was asked for though others follow; so the end
        is a page that is short and has nothing new.

        Args:
            model: only this model's.
            status: only with this status.
            created_after: Unix seconds.
            created_before: Unix seconds.
            page_size: tasks that are asked for at once, at most 100.

        Raises:
            BadInput: a filter cannot be right.
            ApiError: the API refused.
            Unavailable: it did not answer in any of the tries, or its pages have no end.
        """
        filters = HistoryFilters(model, status, created_after, created_before)
        seen: set[str] = set()
        before: tuple[Prediction, ...] | None = None
        for number in range(1, MAX_HISTORY_PAGES + 1):
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
        raise Unavailable("its history has no end; ask for less of it")

    async def delete(self, *task_ids: str) -> None:
        """Remove tasks and their outputs from the API, for good. It does not cancel them.

        A lost answer is no reason not to ask again: the ids name what is to go, and nothing else
        can go by asking twice. NotFound may therefore mean that an earlier try has done it.

        Raises:
            BadInput: no task can have one of these ids; nothing was sent.
            ApiError: the API refused; of more than 100 ids some may be gone.
            Unavailable: it did not answer in any of the tries.
        """
        parts = range(0, len(task_ids), _MAX_IDS_PER_DELETE)
        for request in [self._api.delete(task_ids[i : i + _MAX_IDS_PER_DELETE]) for i in parts]:
            await self._connection.ask(request, responses.read_done)

    async def models(self) -> list[Model]:
        """Fetch every model that the API has.

        Raises:
            ApiError: the API refused.
            Unavailable: it did not answer in any of the tries.
        """
        return await self._connection.ask(self._api.models(), responses.read_models)

    async def price(self, model: str, input: Mapping[str, JSON]) -> Price:
        """Ask what a task would cost; asking is free.

        Raises:
            BadInput: no model can have this id, or the input is no JSON.
            ApiError: the API refused.
            Unavailable: it did not answer in any of the tries.
        """
        return await self._connection.ask(self._api.price(model, input), responses.read_price)

    async def balance(self) -> float:
        """Ask how much is left on the account, in USD; the cheapest way to try a key.

        Raises:
            ApiError: the API refused, such as AuthFailed.
            Unavailable: it did not answer in any of the tries.
        """
        return await self._connection.ask(self._api.balance(), responses.read_balance)

    async def upload(self, data: bytes, *, filename: str, content_type: str) -> str:
        """Put a file where models can read it, for 7 days.

        The bytes are sent again where a try was lost: the same bytes go to the same place, so
        that the second try changes nothing.

        Args:
            data: 1 byte to 200 MiB.
            filename: without folders; the API and whoever sees the URL learn it.
            content_type: such as `image/png`.

        Returns:
            The URL to give to models.

        Raises:
            BadInput: the API would not take it.
            ApiError: the API or its storage refused.
            Unavailable: one of them did not answer in any of the tries.
        """
        request = self._api.upload(filename, len(data), content_type)
        place = await self._connection.ask(request, responses.read_upload_target)
        await self._connection.ask(requests.put_file(place, data), responses.read_stored)
        return place.download_url

    async def webhook_secret(self) -> str:
        """Fetch the secret that the webhooks for this API key are signed with.

        Raises:
            ApiError: the API refused, such as AuthFailed.
            Unavailable: it did not answer in any of the tries.
        """
        return await self._connection.ask(self._api.webhook_secret(), responses.read_secret)


@functools.cache
def _asker() -> tuple[tuple[str, str], ...]:
    """Headers that tell the API who asks."""
    from importlib import metadata  # not needed to import this module

    version = None
    with contextlib.suppress(metadata.PackageNotFoundError):
        version = metadata.version("wavehook")
    # It is None where the distribution's own record is damaged, whatever its type says.
    version = version or "unknown"
    return (
        ("user-agent", f"wavehook/{version}"),
        ("x-client-name", "wavehook"),
        ("x-client-version", version),
        ("x-client-os", "windows" if sys.platform == "win32" else sys.platform),
    )

"""The receiver's requests to the API: the state of a task, and the account's webhook secret.

The receiving path imports no HTTP client until one is needed.
"""

from __future__ import annotations

import asyncio
import math
from asyncio import AbstractEventLoop
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from receiver.config import Settings
from receiver.errors import ApiUnavailable
from receiver.telemetry import Hook, TelemetryEvent
from submitter.errors import BadInput, NotFound, RateLimited, SubmitterError, Unavailable
from submitter.prediction import Prediction

if TYPE_CHECKING:
    from submitter.api.client import ApiClient

SECRET_TIMEOUT_S = 20.0
"""Timeout for the webhook secret at a start."""

RESULT_TIMEOUT_S = 10.0
"""Timeout for the state of a task, while a sender waits for its response."""

MAX_CONCURRENT_REQUESTS = 4
"""Requests to the API at the same time."""

RETRY_AFTER_RANGE_S = (5, 3600)
"""Shortest and longest Retry-After for a sender while the API is away."""

RESULT_CACHE_S = 1.0
"""Seconds for which a fetched result is kept; the inbox has it by then."""


def make_api_client(settings: Settings) -> ApiClient:
    """Make an API client with the settings' key; use it as an async context manager.

    Raises:
        BadSettings: the key or the address is invalid.
    """
    from submitter.api.client import ApiClient

    key = settings.api_key.get_secret_value() if settings.api_key else None
    return ApiClient(key, settings.base_url)


def fetch_secret(settings: Settings) -> str:
    """Fetch the account's webhook secret from the API; allowed inside a running event loop.

    Raises:
        SubmitterError: the API refused, or did not answer.
    """

    async def fetch() -> str:
        async with make_api_client(settings) as calls:
            async with asyncio.timeout(SECRET_TIMEOUT_S):
                return await calls.webhook_secret()

    with ThreadPoolExecutor(1, thread_name_prefix="wavehook-secret") as thread:
        return thread.submit(asyncio.run, fetch()).result()


Answer = Prediction | ApiUnavailable | None


@dataclass(slots=True)
class _LoopClient:
    """The API client of one event loop, and its open requests by task id."""

    loop: AbstractEventLoop
    calls: ApiClient
    slots: asyncio.Semaphore
    requests: dict[str, asyncio.Task[Answer]] = field(default_factory=dict)

    def finished(self, task_id: str, done: asyncio.Task[Answer]) -> None:
        """Keep a result for callers that read the inbox before it was stored."""
        answer = None if done.cancelled() or done.exception() else done.result()
        keep = RESULT_CACHE_S if isinstance(answer, Prediction) and answer.terminal else 0.0
        self.loop.call_later(keep, self.requests.pop, task_id, None)


class ResultFetcher:
    """Fetches the state of tasks, over one connection that is made at the first request.

    Concurrent fetches of one task share one request.

    Args:
        connect: makes the API client.
        hooks: called for every request and every result.
        timeout: seconds for one response, including the wait for a free slot.
    """

    def __init__(
        self,
        connect: Callable[[], ApiClient],
        *,
        hooks: Sequence[Hook] = (),
        timeout: float = RESULT_TIMEOUT_S,
    ) -> None:
        self._connect = connect
        self._hooks = tuple(hooks)
        self._timeout = timeout
        self._client: _LoopClient | None = None

    async def fetch(self, task_id: str) -> Prediction | None:
        """Return the task as the API has it now; None if the API does not know the id.

        Raises:
            ApiUnavailable: the API did not answer, or not in time.
        """
        try:
            client = await self._connected()
        except SubmitterError as error:
            raise ApiUnavailable(str(error)) from error
        request = client.requests.get(task_id)
        if request is None:
            request = asyncio.create_task(self._request(client, task_id))
            client.requests[task_id] = request
            request.add_done_callback(lambda done: client.finished(task_id, done))
        # `wait` leaves the request running if this caller is cancelled: others may share it.
        await asyncio.wait({request})
        if request.cancelled():
            raise ApiUnavailable("the receiver is shutting down")
        answer = request.result()
        if isinstance(answer, ApiUnavailable):
            raise answer
        return answer

    async def start(self) -> None:
        """Do nothing; the first request connects."""

    async def stop(self) -> None:
        """Close the connection; the next request makes another."""
        client, self._client = self._client, None
        if client is None or client.loop is not asyncio.get_running_loop():
            return
        if requests := set(client.requests.values()):
            for request in requests:
                request.cancel()
            await asyncio.wait(requests)
        await client.calls.__aexit__(None, None, None)

    async def _connected(self) -> _LoopClient:
        loop = asyncio.get_running_loop()
        # On some platforms every request has its own event loop.
        if self._client is None or self._client.loop is not loop:
            calls = self._connect()
            self._client = _LoopClient(loop, calls, asyncio.Semaphore(MAX_CONCURRENT_REQUESTS))
            await calls.__aenter__()
        return self._client

    async def _request(self, client: _LoopClient, task_id: str) -> Answer:
        try:
            async with asyncio.timeout(self._timeout), client.slots:
                self._emit("reconcile.asked", task_id)
                prediction = await client.calls.result(task_id)
                if prediction.terminal:
                    self._emit("reconcile.found", task_id)
                return prediction
        except (NotFound, BadInput):
            return None
        except TimeoutError:
            return ApiUnavailable(f"the API did not answer in {self._timeout:g} s")
        except SubmitterError as error:
            wait = error.retry_after if isinstance(error, Unavailable | RateLimited) else None
            shortest, longest = RETRY_AFTER_RANGE_S
            return ApiUnavailable(str(error), max(shortest, min(math.ceil(wait or 0), longest)))

    def _emit(self, name: str, task_id: str) -> None:
        for hook in self._hooks:
            hook(TelemetryEvent(name, task_id=task_id))

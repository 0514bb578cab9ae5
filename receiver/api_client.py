"""What the receiver asks the API: how a task stands, and the account's webhook secret.

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
    from submitter.api.client import Calls

FETCH_LIMIT = 20.0
"""Seconds that the API has to give the webhook secret at a start."""

ANSWER_LIMIT = 10.0
"""Seconds that the API has to say how a task stands, while a sender waits for its answer."""

AT_ONCE = 4
"""Questions at one time."""

RETRY_AFTER = (5, 3600)
"""Seconds: the least and the most that a sender is asked to wait where the API is away."""


def make_api_client(settings: Settings) -> Calls:
    """The API's calls with the settings' key, to be entered as a context.

    Raises:
        BadSettings: key or address cannot work.
    """
    from submitter.api.client import Calls

    key = settings.api_key.get_secret_value() if settings.api_key else None
    return Calls(key, settings.base_url)


def fetch_secret(settings: Settings) -> str:
    """Ask the API for the account's webhook secret; works inside of a running event loop too.

    Raises:
        SubmitterError: the API refused, or did not answer.
    """

    async def fetch() -> str:
        async with make_api_client(settings) as calls:
            return await asyncio.wait_for(calls.webhook_secret(), FETCH_LIMIT)

    with ThreadPoolExecutor(1, thread_name_prefix="wavehook-secret") as thread:
        return thread.submit(asyncio.run, fetch()).result()


FRESH = 1.0
"""Seconds for which a result need not be asked for again; the inbox has it by then."""

Answer = Prediction | ApiUnavailable | None


@dataclass(slots=True)
class _Connection:
    """The calls of one event loop, and the questions under way."""

    loop: AbstractEventLoop
    calls: Calls
    places: asyncio.Semaphore
    asking: dict[str, asyncio.Task[Answer]] = field(default_factory=dict)

    def answered(self, task_id: str, done: asyncio.Task[Answer]) -> None:
        """Keep a result for those who looked into the inbox before it was there."""
        answer = None if done.cancelled() or done.exception() else done.result()
        keep = FRESH if isinstance(answer, Prediction) and answer.terminal else 0.0
        self.loop.call_later(keep, self.asking.pop, task_id, None)


class ResultFetcher:
    """Asks how tasks stand, over one connection that is made at the first question.

    Questions about one task at one time are one question.

    Args:
        connect: makes the API's calls.
        hooks: are told of every question, and of every result.
        limit: seconds for one answer, the wait for its turn included.
    """

    def __init__(
        self,
        connect: Callable[[], Calls],
        *,
        hooks: Sequence[Hook] = (),
        limit: float = ANSWER_LIMIT,
    ) -> None:
        self._connect = connect
        self._hooks = tuple(hooks)
        self._limit = limit
        self._connection: _Connection | None = None

    async def fetch(self, task_id: str) -> Prediction | None:
        """The task as the API describes it now; None where it knows none of this id.

        Raises:
            ApiUnavailable: it does not say, or not in time.
        """
        try:
            connection = await self._connected()
        except SubmitterError as error:
            raise ApiUnavailable(str(error)) from error
        asking = connection.asking.get(task_id)
        if asking is None:
            asking = asyncio.create_task(self._ask(connection, task_id))
            connection.asking[task_id] = asking
            asking.add_done_callback(lambda done: connection.answered(task_id, done))
        # One sender that leaves takes the answer from no other.
        await asyncio.wait({asking})
        if asking.cancelled():
            raise ApiUnavailable("the receiver is shutting down")
        answer = asking.result()
        if isinstance(answer, ApiUnavailable):
            raise answer
        return answer

    async def start(self) -> None:
        """Nothing is connected before it is needed."""

    async def stop(self) -> None:
        """Let go of the connection; the next question makes another."""
        connection, self._connection = self._connection, None
        if connection is None or connection.loop is not asyncio.get_running_loop():
            return
        if under_way := set(connection.asking.values()):
            for asking in under_way:
                asking.cancel()
            await asyncio.wait(under_way)
        await connection.calls.__aexit__(None, None, None)

    async def _connected(self) -> _Connection:
        loop = asyncio.get_running_loop()
        # On some platforms every request has an event loop of its own (F41).
        if self._connection is None or self._connection.loop is not loop:
            calls = self._connect()
            self._connection = _Connection(loop, calls, asyncio.Semaphore(AT_ONCE))
            await calls.__aenter__()
        return self._connection

    async def _ask(self, connection: _Connection, task_id: str) -> Answer:
        try:
            async with asyncio.timeout(self._limit), connection.places:
                self._tell("reconcile.asked", task_id)
                prediction = await connection.calls.result(task_id)
                if prediction.terminal:
                    self._tell("reconcile.found", task_id)
                return prediction
        except (NotFound, BadInput):
            return None
        except TimeoutError:
            return ApiUnavailable(f"the API did not answer in {self._limit:g} s")
        except SubmitterError as error:
            wait = error.retry_after if isinstance(error, Unavailable | RateLimited) else None
            least, most = RETRY_AFTER
            return ApiUnavailable(str(error), max(least, min(math.ceil(wait or 0), most)))

    def _tell(self, name: str, task_id: str) -> None:
        for hook in self._hooks:
            hook(TelemetryEvent(name, task_id=task_id))

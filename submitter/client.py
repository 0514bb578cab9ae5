"""The client: submits once, waits without polling, loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import random as _random
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self
from uuid import uuid4

import httpx

from submitter.api import urls
from submitter.api.client import ApiClient
from submitter.catalogue.kling import TypedInput
from submitter.catalogue.live import Catalogue
from submitter.errors import Fault, SubmissionUnknown
from submitter.ledger import open_ledger
from submitter.ledger.base import Entry, Ledger, Limits
from submitter.prediction import JSON, Prediction
from submitter.reconcile.reconciler import Reconciler
from submitter.reconcile.schedule import Schedule
from submitter.results.receiver_feed import ReceiverFeed
from submitter.results.stream import ResultStreams
from submitter.results.wait import ResultWaiter, nothing_created
from submitter.results.waiters import WaiterRegistry
from submitter.settings import SubmitSettings, from_environment
from submitter.storage.postgres_pool import is_postgres
from submitter.submit.context_token import Seal, read_key
from submitter.submit.rate_limit import SubmitLimiter
from submitter.submit.request import PreparedSubmit
from submitter.submit.sender import Sender
from submitter.submit.submission import Submission

CLOSE_TIMEOUT_S = 5.0
"""Seconds that submits on their way get to end when the client is closed."""

NOT_OPEN = "use the client as `async with WaveSpeed() as wave:`"

MAX_RUN_SUBMITS = 3
"""How often `run` submits where the one before is proven to have created nothing."""


class WaveSpeed(ApiClient):
    """Talks to the WaveSpeedAI API. Use it as `async with WaveSpeed() as wave:`.

    What is not given is read from the environment (see the settings in the README).

    Args:
        api_key: `WAVESPEED_API_KEY`.
        base_url: `WAVESPEED_BASE_URL`, or the API's own address.
        webhook_url: where the receiver is reached from outside, `WAVEHOOK_PUBLIC_URL`; webhooks
            go to `/webhooks/wavespeed` below it. `""` asks for no webhooks.
        seal: seals context and key into the webhook's URL; by default with
            `WAVEHOOK_SEAL_KEYS`, or the receiver's key file beside the SQLite file, if it is there.
        ledger: by default the one in `WAVEHOOK_DATABASE`. A given one is opened, not closed.
        limits: by default `WAVEHOOK_RATE` and `WAVEHOOK_IN_FLIGHT`.
        settings: instead of the environment.
        transport: how requests travel, for tests and proxies of one's own.
        clock: gives Unix seconds.
        random: a number from 0 to 1, for jitter.

    Raises:
        BadSettings: one of these cannot work.
    """

    def __init__(
        self,
        api_key: str | None = None,
        base_url: str | None = None,
        *,
        webhook_url: str | None = None,
        seal: Seal | None = None,
        ledger: Ledger | None = None,
        limits: Limits | None = None,
        settings: SubmitSettings | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.time,
        random: Callable[[], float] = _random.random,
    ) -> None:
        given = from_environment() if settings is None else settings
        super().__init__(
            api_key or given.api_key or "",
            base_url or given.base_url,
            transport=transport,
            clock=clock,
        )
        url = given.public_url if webhook_url is None else webhook_url
        public_url = urls.public_base(url) if url else None
        self._owned = ledger is None
        self._ledger = ledger or open_ledger(
            given.database_path,
            given.database,
            schema=given.database_schema,
            pooler=given.database_pooler,
        )
        if seal is None and public_url is not None:
            seal = _seal(given)
        self._clock = clock
        self._schedule = Schedule(given.overdue)
        self.catalogue = Catalogue(self.models, name=self.base_url, clock=clock)
        self._reconciler = Reconciler(
            self, self._ledger, schedule=self._schedule, clock=clock, random=random
        )
        self._submitting = Sender(
            self,
            self._ledger,
            models=self.catalogue,
            flow=SubmitLimiter(
                self._ledger,
                limits or Limits(given.rate, given.in_flight),
                self._schedule,
                relieve=self._reconciler.round,
                clock=clock,
                random=random,
            ),
            schedule=self._schedule,
            public_url=public_url,
            seal=seal,
            seals=is_postgres(given.database),
            timeout=given.submit_timeout,
            clock=clock,
        )
        self._heard = (public_url, given.admin_token)
        self._transport = transport
        self._feed: ReceiverFeed | None = None
        self._waiting: WaiterRegistry | None = None
        self._streaming = ResultStreams()

    async def __aenter__(self) -> Self:
        await self._ledger.open()
        await super().__aenter__()
        self._submitting.open()
        url, token = self._heard
        if url and token:
            self._feed = ReceiverFeed(
                url, token, self._ledger, transport=self._transport, clock=self._clock
            )
        self._waiting = WaiterRegistry(self._ledger, self._reconciler, self._schedule, self._feed)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        async with contextlib.AsyncExitStack() as exits:
            if self._owned:
                exits.push_async_callback(self._ledger.close)
            exits.push_async_exit(super().__aexit__)
            if self._feed is not None:
                exits.push_async_callback(self._feed.close)
            waiting, self._waiting = self._waiting, None
            if waiting is not None:
                exits.push_async_callback(waiting.stop)
            await self._submitting.stop(CLOSE_TIMEOUT_S)

    async def submit(
        self,
        model: str | TypedInput,
        input: Mapping[str, object] | None = None,
        *,
        key: str | None = None,
        context: JSON = None,
        webhook: bool | str = True,
        max_cost: float | None = None,
        cost: float | None = None,
        **fields: object,
    ) -> Submission:
        """Submit a task; the request goes out exactly once.

        It waits for its place in the limits, and sends again only what the API answered with 429.

        Args:
            model: such as `kwaivgi/kling-v2.1-i2v-standard`, or a typed input such as
                `KlingImageToVideo(prompt=…, image=…)`.
            input: the model's input; `fields` are added to it. Where the model takes a file, a
                path or bytes are uploaded, a URL is passed on.
            key: names what is to be paid once: a second submit under the same key sends nothing
                and returns the first. Without one, each call is a task of its own.
            context: any small JSON, given to every handler beside the result.
            webhook: True uses the client's `webhook_url`, where it has one; False asks for no
                webhook; a URL is used as it is, and leaves no place for a context.
            max_cost: USD; the API is asked for the price first.
            cost: USD, where the price is known already; nobody is asked for it then.
            **fields: single fields of the input.

        Raises:
            BadInput: nothing was sent; carries all faults.
            BadSettings: a context needs `webhook_url` and `seal`.
            OverBudget: it would cost more than `max_cost`; nothing was sent.
            ApiError: the API refused, and created nothing; RateLimited after many tries.
            Unavailable: the API could not be reached; nothing was sent.
            SubmissionUnknown: the task may exist and be billed; the ledger settles it.
            LedgerUnavailable: it could not be written down; nothing was sent.
        """
        order = await self.check(
            model, input, key=key, context=context, webhook=webhook, max_cost=max_cost, **fields
        )
        ends = self._ends
        with self._streaming.sending(order.key):
            entry, prediction = await self._submitting.send(replace(order, cost=cost))
        return Submission(entry, prediction or entry.prediction, ends.result)

    async def check(
        self,
        model: str | TypedInput,
        input: Mapping[str, object] | None = None,
        *,
        key: str | None = None,
        context: JSON = None,
        webhook: bool | str = True,
        max_cost: float | None = None,
        **fields: object,
    ) -> PreparedSubmit:
        """Do all that `submit`, with the same arguments, does before a price is asked for.

        Raises:
            BadInput: carries all faults.
            BadSettings: a context needs `webhook_url` and `seal`.
        """
        if self._waiting is None:
            raise RuntimeError(NOT_OPEN)
        typed = {} if isinstance(model, str) else model.input()
        parts = [typed, input or {}, fields]
        times = Counter(name for part in parts for name in part)
        return await self._submitting.check(
            model if isinstance(model, str) else model.model,
            {name: value for part in parts for name, value in part.items()},
            key=uuid4().hex if key is None else key,
            context=context,
            webhook=webhook,
            max_cost=max_cost,
            faults=[Fault(name, "is given twice") for name in times if times[name] > 1],
        )

    async def find(self, keys: Sequence[str]) -> dict[str, Entry]:
        """What the ledger has of submissions, by key; of those that are there.

        Raises:
            LedgerUnavailable: it cannot be read.
        """
        return await self._ledger.find(keys)

    async def run(
        self,
        model: str | TypedInput,
        input: Mapping[str, object] | None = None,
        *,
        timeout: float | None = None,
        key: str | None = None,
        context: JSON = None,
        webhook: bool | str = True,
        max_cost: float | None = None,
        **fields: object,
    ) -> Prediction:
        """Submit a task and wait until it has ended; a failed one is an answer, no error.

        A lost answer is settled first, and sent again only where it created nothing.

        `timeout` is seconds for all of it; at their end the API is asked once. None waits as long
        as it takes. All other arguments are those of `submit`.

        Raises:
            StillRunning: the time is over and the task has not ended; it is not lost.
            SubmitterError: as `submit`, but for SubmissionUnknown.
        """
        loop = asyncio.get_running_loop()
        until = None if timeout is None else loop.time() + timeout
        ends, order = self._ends, None
        try:
            async with asyncio.timeout_at(until):
                order = await self.check(
                    model,
                    input,
                    key=key,
                    context=context,
                    webhook=webhook,
                    max_cost=max_cost,
                    **fields,
                )
                for _ in range(MAX_RUN_SUBMITS):
                    with contextlib.suppress(SubmissionUnknown):
                        await self._submitting.send(order)
                    entry = await ends.entry(order.key)
                    if entry.prediction is not None:
                        return entry.prediction
        except TimeoutError:
            if order is None:
                raise nothing_created("its input was not checked in time") from None
            return await ends.at_deadline(order.key)
        raise nothing_created(f"its answer was lost {MAX_RUN_SUBMITS} times")

    async def wait(self, id: str, *, timeout: float | None = None) -> Prediction:
        """Wait for a task by its id, or by the key of its submission.

        A task that the ledger does not know is taken into it.

        Args:
            id: of the task, or the key.
            timeout: seconds; see `Submission.result`.

        Raises:
            StillRunning: the time is over and the task has not ended.
            SubmitterError: see `Submission.result`.
        """
        return await self._ends.of(id, timeout)

    async def stream(self, *, follow: bool = False) -> AsyncGenerator[Prediction, None]:
        """Give the predictions of this client's submits as they end, each once.

        Those that ended before are given first. It ends when all that were submitted have ended.

        Args:
            follow: go on until closed, with whatever ends in the ledger, whoever submitted it.

        Raises:
            StillRunning: the client was closed, and tasks have not ended; they are not lost.
        """
        if self._waiting is None:
            raise RuntimeError(NOT_OPEN)
        entries = self._streaming.stream(self._waiting, follow=follow)
        async with contextlib.aclosing(entries):
            async for entry in entries:
                if entry.prediction is not None:
                    yield entry.prediction

    @property
    def _ends(self) -> ResultWaiter:
        if self._waiting is None:
            raise RuntimeError(NOT_OPEN)
        return ResultWaiter(self, self._ledger, self._waiting, self._schedule, clock=self._clock)


def _seal(given: SubmitSettings) -> Seal | None:
    """With the settings' keys, or the receiver's key file.

    No file is made: a receiver refuses what is sealed with a key that it does not know.
    """
    if given.seal_keys:
        return Seal(given.seal_keys)
    path = given.key_path
    key = None if path is None else read_key(path)
    return None if key is None else Seal([key])

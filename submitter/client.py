"""The client of the WaveSpeedAI API: submits each task once and waits for its result.

A submit goes through `submitter.submit.sender`, a wait through `submitter.results.wait`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random as _random
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from submitter.results.wait import ResultWaiter, WaiterRegistry, nothing_created
from submitter.settings import SubmitSettings, from_environment
from submitter.storage.postgres_pool import is_postgres
from submitter.submit.context_token import Seal, read_key
from submitter.submit.rate_limit import SubmitLimiter
from submitter.submit.sender import PreparedSubmit, Sender

CLOSE_TIMEOUT_S = 5.0
"""Seconds that a closing client waits for submits in flight."""

NOT_OPEN = "use the client as `async with WaveSpeed() as wave:`"

MAX_RUN_SUBMITS = 3
"""Submits of one `run`; the next follows only if the last is proven to have created nothing."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A task that was submitted once; a submit with the same key returns the same one.

    Attributes:
        entry: its ledger entry at the time of the submit.
        prediction: the task in the API's response; None if the response is not known.
    """

    entry: Entry
    prediction: Prediction | None
    _wait: Callable[[str, float | None], Awaitable[Prediction]] = field(repr=False)

    @property
    def key(self) -> str:
        """The idempotency key."""
        return self.entry.key

    @property
    def model(self) -> str:
        """The model's id."""
        return self.entry.model

    @property
    def task_id(self) -> str | None:
        """The API's id of the task, once it is known."""
        return self.entry.task_id

    async def result(self, timeout: float | None = None) -> Prediction:
        """Wait until the task has ended; a failed task does not raise.

        An earlier result is returned at once. Cancelling the wait loses nothing.

        Args:
            timeout: seconds; at their end the API is asked once. None: no limit.

        Raises:
            StillRunning: the timeout is over and the task has not ended.
            Unavailable: the submission turned out to have created nothing.
            ApiError: the API refused the question at the end.
            LedgerUnavailable: the ledger cannot be read.
        """
        return await self._wait(self.key, timeout)


class WaveSpeed(ApiClient):
    """Client of the WaveSpeedAI API with a ledger. Use it as `async with WaveSpeed() as wave:`.

    Arguments that are not given are read from the environment (see the settings in the README).

    Args:
        api_key: `WAVESPEED_API_KEY`.
        base_url: `WAVESPEED_BASE_URL`, or the API's own address.
        webhook_url: the receiver's public base URL, `WAVEHOOK_PUBLIC_URL`; webhooks go to
            `/webhooks/wavespeed` below it. `""`: no webhooks.
        seal: encrypts context and key into the webhook URL; by default with
            `WAVEHOOK_SEAL_KEYS`, or the receiver's key file beside the SQLite file, if it exists.
        ledger: by default the one in `WAVEHOOK_DATABASE`. A given one is opened, not closed.
        limits: by default `WAVEHOOK_RATE` and `WAVEHOOK_IN_FLIGHT`.
        settings: instead of the environment.
        transport: of httpx, for tests and proxies.
        clock: returns Unix seconds.
        random: a number from 0 to 1, for jitter.
        close_timeout: seconds that a closing client waits for submits in flight.

    Raises:
        BadSettings: an argument or setting is invalid.
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
        close_timeout: float = CLOSE_TIMEOUT_S,
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
        self._sender = Sender(
            self,
            self._ledger,
            models=self.catalogue,
            limiter=SubmitLimiter(
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
            seal_required=is_postgres(given.database),
            timeout=given.submit_timeout,
            clock=clock,
        )
        self._receiver = (public_url, given.admin_token)
        self._transport = transport
        self._close_timeout = close_timeout
        self._feed: ReceiverFeed | None = None
        self._waiters: WaiterRegistry | None = None
        self._streams = ResultStreams()

    async def __aenter__(self) -> Self:
        await self._ledger.open()
        await super().__aenter__()
        self._sender.open()
        url, token = self._receiver
        if url and token:
            self._feed = ReceiverFeed(
                url, token, self._ledger, transport=self._transport, clock=self._clock
            )
        self._waiters = WaiterRegistry(self._ledger, self._reconciler, self._schedule, self._feed)
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
            waiters, self._waiters = self._waiters, None
            if waiters is not None:
                exits.push_async_callback(waiters.stop)
            await self._sender.stop(self._close_timeout)

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
        """Submit a task with exactly one request.

        It first waits for the rate limit. Only after a 429, which creates nothing, it sends again.

        Args:
            model: such as `kwaivgi/kling-v2.1-i2v-standard`, or a typed input such as
                `KlingImageToVideo(prompt=…, image=…)`.
            input: the model's input; `fields` are added to it. If a field takes a file, a path or
                bytes are uploaded and a URL is passed on.
            key: idempotency key: a second submit with the same key sends nothing and returns the
                first. Without one, each call creates a task.
            context: any small JSON; every handler receives it with the result.
            webhook: True: the client's `webhook_url`, if set; False: no webhook; a URL: used
                unchanged, without a context.
            max_cost: USD; the price is requested first.
            cost: USD, if the price is known already; it is not requested then.
            **fields: single fields of the input.

        Raises:
            BadInput: nothing was sent; carries all faults.
            BadSettings: a context needs `webhook_url` and `seal`.
            OverBudget: it would cost more than `max_cost`; nothing was sent.
            ApiError: the API refused and created nothing; RateLimited after 10 tries.
            Unavailable: the API could not be reached; nothing was sent.
            SubmissionUnknown: the task may exist and be billed; the ledger settles it.
            LedgerUnavailable: the intent could not be written; nothing was sent.
        """
        prepared = await self.check(
            model, input, key=key, context=context, webhook=webhook, max_cost=max_cost, **fields
        )
        with self._streams.sending(prepared.key):
            entry, prediction = await self._sender.send(replace(prepared, cost=cost))
        return Submission(entry, prediction or entry.prediction, self._result)

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
        """Check a submit without sending it: everything `submit` does before it requests a price.

        Raises:
            BadInput: carries all faults.
            BadSettings: a context needs `webhook_url` and `seal`.
        """
        if self._waiters is None:
            raise RuntimeError(NOT_OPEN)
        typed = {} if isinstance(model, str) else model.input()
        parts = [typed, input or {}, fields]
        times = Counter(name for part in parts for name in part)
        return await self._sender.check(
            model if isinstance(model, str) else model.model,
            {name: value for part in parts for name, value in part.items()},
            key=uuid4().hex if key is None else key,
            context=context,
            webhook=webhook,
            max_cost=max_cost,
            faults=[Fault(name, "is given twice") for name in times if times[name] > 1],
        )

    async def find(self, keys: Sequence[str]) -> dict[str, Entry]:
        """Ledger entries by key; unknown keys are left out.

        Raises:
            LedgerUnavailable: the ledger cannot be read.
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
        """Submit a task and wait until it has ended; a failed task does not raise.

        After a lost response it waits until the reconciler has settled it, and submits again only
        if nothing was created.

        `timeout` is in seconds, for everything; at its end the API is asked once. None: no limit.
        All other arguments are those of `submit`.

        Raises:
            StillRunning: the timeout is over and the task has not ended; it is not lost.
            SubmitterError: as `submit`, except SubmissionUnknown.
        """
        loop = asyncio.get_running_loop()
        until = None if timeout is None else loop.time() + timeout
        results, prepared = self._results, None
        try:
            async with asyncio.timeout_at(until):
                prepared = await self.check(
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
                        await self._sender.send(prepared)
                    entry = await results.entry(prepared.key)
                    if entry.prediction is not None:
                        return entry.prediction
        except TimeoutError:
            if prepared is None:
                raise nothing_created("its input was not checked in time") from None
            return await results.at_deadline(prepared.key)
        raise nothing_created(f"its answer was lost {MAX_RUN_SUBMITS} times")

    async def wait(self, id: str, *, timeout: float | None = None) -> Prediction:
        """Wait for a task by its id, or by the key of its submission.

        A task that the ledger does not know is imported.

        Args:
            id: task id or key.
            timeout: seconds, as in `Submission.result`.

        Raises:
            StillRunning: the timeout is over and the task has not ended.
            SubmitterError: as `Submission.result`.
        """
        return await self._results.of(id, timeout)

    async def stream(self, *, follow: bool = False) -> AsyncGenerator[Prediction, None]:
        """Yield the predictions of this client's submits as they end, each once.

        Tasks that ended earlier come first. The stream ends with the last of the submits.

        Args:
            follow: yield every task that ends in the ledger, from any client, until closed.

        Raises:
            StillRunning: the client was closed, and tasks have not ended; they are not lost.
        """
        if self._waiters is None:
            raise RuntimeError(NOT_OPEN)
        entries = self._streams.stream(self._waiters, follow=follow)
        async with contextlib.aclosing(entries):
            async for entry in entries:
                if entry.prediction is not None:
                    yield entry.prediction

    async def _result(self, key: str, timeout: float | None) -> Prediction:
        if self._waiters is None:
            raise RuntimeError("the client was closed; open it again to wait")
        return await self._results.result(key, timeout)

    @property
    def _results(self) -> ResultWaiter:
        if self._waiters is None:
            raise RuntimeError(NOT_OPEN)
        return ResultWaiter(self, self._ledger, self._waiters, self._schedule, clock=self._clock)


def _seal(given: SubmitSettings) -> Seal | None:
    """The seal of the settings' keys, or of the receiver's key file.

    A missing file is not created: the receiver would not know that key and refuse its tokens.
    """
    if given.seal_keys:
        return Seal(given.seal_keys)
    path = given.key_path
    key = None if path is None else read_key(path)
    return None if key is None else Seal([key])

"""The way of one submission: checked, written down, sent once, recorded.

Between the intent and the record there is no moment at which a killed process leaves a task that
the ledger does not know of: what was not recorded is doubted, and looked for in the history.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from weakref import WeakValueDictionary

from submitter import catalogue
from submitter.api import requests, urls
from submitter.api.client import ApiClient
from submitter.catalogue.live import Catalogue
from submitter.errors import (
    ApiError,
    BadInput,
    BadSettings,
    Fault,
    LedgerUnavailable,
    OverBudget,
    RateLimited,
    SubmissionUnknown,
    Unavailable,
)
from submitter.ledger.base import Entry, Intent, Ledger, Result, State
from submitter.prediction import JSON, Prediction
from submitter.reconcile.schedule import Schedule
from submitter.submit.context_token import Seal
from submitter.submit.files import LocalFile, prepare
from submitter.submit.rate_limit import SubmitLimiter
from submitter.submit.request import PreparedSubmit, cap_fault, digest, key_fault, same

UPLOAD_REUSE_S = 86400.0
"""Seconds for which a file is not uploaded again."""

MAX_RATE_LIMITED_TRIES = 10
"""How often a submit is sent again after a 429, which created nothing."""

MAX_RECORD_TRIES = 5
"""How often a record is tried in a ledger that is away."""

log = logging.getLogger("wavehook.submitter")


class Sender:
    """Checks and sends.

    Args:
        calls: of the API.
        ledger: open.
        models: what is known of models.
        flow: gives places.
        schedule: when a result is overdue.
        public_url: of the receiver; None: no webhooks.
        seal: seals context and key into the webhook's URL; None: there is no token.
        seals: without a token no webhook is asked for.
        timeout: seconds that the answer may take.
        clock: Unix seconds.
    """

    def __init__(
        self,
        calls: ApiClient,
        ledger: Ledger,
        *,
        models: Catalogue,
        flow: SubmitLimiter,
        schedule: Schedule,
        public_url: str | None,
        seal: Seal | None,
        seals: bool = False,
        timeout: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._calls = calls
        self._ledger = ledger
        self._models = models
        self._flow = flow
        self._schedule = schedule
        self._public_url = public_url
        self._seal = seal
        self._seals = seals
        self._timeout = timeout
        self._clock = clock
        self._sending: set[asyncio.Task[tuple[Entry, Prediction]]] = set()
        self._uploading: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def check(
        self,
        model: str,
        input: Mapping[str, object],
        *,
        key: str,
        context: JSON,
        webhook: bool | str,
        max_cost: float | None,
        faults: list[Fault],
    ) -> PreparedSubmit:
        """Find everything that is wrong, before anything is sent.

        Raises:
            BadInput: with all faults, those that were given among them; ContextTooLarge where it
                is only that.
            BadSettings: a public URL or a seal is missing.
        """
        no_model = requests.model_fault(model)
        faults = [*faults, *filter(None, [no_model, key_fault(key), cap_fault(max_cost)])]
        known = None if no_model else await self._models.model(model)
        schema = (known.schema if known else None) or {}
        prepared = await asyncio.to_thread(prepare, input, schema)
        faults += prepared.faults
        told = {fault.path for fault in faults}
        # A model that nobody knows is checked by the API itself, beyond being JSON.
        faults += [
            fault for fault in catalogue.check(schema, prepared.input) if fault.path not in told
        ]
        try:
            self._address(context, webhook, model, key)
        except BadInput as error:
            if not faults:
                raise
            faults += error.faults
        if faults:
            raise BadInput(faults)
        return PreparedSubmit(
            key, model, prepared, digest(model, prepared), context, webhook, max_cost
        )

    async def known(self, order: PreparedSubmit) -> Entry | None:
        """The entry of this key, where it is paid for already or may be.

        Raises:
            BadInput: the key was used for something else.
            LedgerUnavailable: it cannot be read.
        """
        entry = (await self._ledger.find([order.key])).get(order.key)
        if entry is None or entry.state is State.REJECTED:
            return None
        same(entry, order)
        return entry

    async def send(self, order: PreparedSubmit) -> tuple[Entry, Prediction | None]:
        """Send it, unless its key is paid for already; a 429 is waited for.

        Whoever cancels this cancels the waiting, not the request on its way.

        Returns:
            The entry, and the API's answer; None where this call sent nothing.

        Raises:
            SubmitterError: see `WaveSpeed.submit`.
        """
        if (entry := await self.known(order)) is not None:
            return entry, None
        input = order.prepared.filled(await self._upload(order))
        cost = await self._price(order, input)
        refusals = 0
        while True:
            intended = await self._flow.place(lambda now: self._intent(order, input, cost, now))
            if not intended.fresh:
                same(intended.entry, order)
                return intended.entry, None
            sending = asyncio.create_task(self._send(intended.entry, order))
            self._sending.add(sending)
            sending.add_done_callback(self._sent)
            try:
                return await asyncio.shield(sending)
            except RateLimited:
                refusals += 1
                if refusals == MAX_RATE_LIMITED_TRIES:
                    raise

    def open(self) -> None:
        """Take submits."""
        self._flow.open()

    async def stop(self, grace: float) -> None:
        """Let requests on their way end; what takes longer is doubted.

        Args:
            grace: seconds.
        """
        await self._flow.stop()
        if self._sending:
            _, late = await asyncio.wait(self._sending, timeout=grace)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _intent(
        self, order: PreparedSubmit, input: Mapping[str, JSON], cost: float | None, now: float
    ) -> Intent:
        return Intent(
            key=order.key,
            model=order.model,
            input=input,
            digest=order.digest,
            # The time limit is the request's; a moment more is for writing down what came of it.
            until=now + self._timeout + self._schedule.soon,
            context=order.context,
            webhook=order.webhook is True and self._public_url is not None,
            cost=cost,
        )

    async def _send(self, entry: Entry, order: PreparedSubmit) -> tuple[Entry, Prediction]:
        key, model = entry.key, entry.model
        try:
            url = self._address(order.context, order.webhook, model, key)
            # By `until` it is over: others may then believe that there is no task, and send again.
            left = min(self._timeout, entry.until - self._clock())
            if left <= 0:
                raise Unavailable("its turn came too late", advice="nothing was sent")
            prediction = await self._calls.post(model, entry.input, url, timeout=left)
            self._flow.accepted()
        except RateLimited as error:
            await self._written(key, self._flow.refused(error.retry_after))
            await self._reject(key, "429: too many requests")
            raise
        except (ApiError, Unavailable) as error:
            await self._reject(key, str(error))
            raise
        except SubmissionUnknown as error:
            await self._doubt(key, error.reason)
            raise SubmissionUnknown(
                model, entry.sent_at, error.reason, status=error.status, key=key
            ) from None
        except asyncio.CancelledError:
            await self._doubt(key, "the client was closed before the answer came")
            raise
        finally:
            self._flow.done()
        return await self._record(entry, prediction), prediction

    async def _reject(self, key: str, reason: str) -> None:
        await self._written(key, self._ledger.reject(key, reason, self._clock()))

    async def _doubt(self, key: str, reason: str) -> None:
        now = self._clock()
        ask_at = now + (self._schedule.look(0) or 0.0)
        await self._written(key, self._ledger.mark_unknown(key, reason, now, ask_at=ask_at))

    async def _written(self, key: str, writing: Awaitable[object]) -> None:
        try:
            await writing
        except LedgerUnavailable as error:
            # It stays INTENDED, and is doubted when its time is over.
            log.warning("ledger.failed key=%s error=%s", key, error)

    async def _record(self, entry: Entry, prediction: Prediction) -> Entry:
        for left in reversed(range(MAX_RECORD_TRIES)):
            try:
                return await self._accept(entry, prediction)
            except LedgerUnavailable as error:
                log.warning(
                    "ledger.failed key=%s task_id=%s error=%s", entry.key, prediction.id, error
                )
                if left:
                    await asyncio.sleep(self._schedule.tick)
        # The task is paid for; its webhook or the history brings it back to the ledger.
        return replace(entry, state=State.ACCEPTED, task_id=prediction.id)

    async def _accept(self, entry: Entry, prediction: Prediction) -> Entry:
        now = self._clock()
        known = await self._ledger.durations(entry.model)
        expected_at = now + self._schedule.expected(known, webhook=entry.webhook)
        accepted = await self._ledger.accept(entry.key, prediction, now, expected_at=expected_at)
        if prediction.terminal:
            await self._ledger.finish([Result(prediction, entry.key)], now)
        return accepted

    def _sent(self, task: asyncio.Task[tuple[Entry, Prediction]]) -> None:
        self._sending.discard(task)
        if not task.cancelled():
            task.exception()  # told to whoever still waits; a caller who left wants no warning

    async def _upload(self, order: PreparedSubmit) -> dict[str, str]:
        urls: dict[str, str] = {}
        for file in order.prepared.files:
            # Of many submits with one file, the first uploads it.
            async with self._uploading.setdefault(file.digest, asyncio.Lock()):
                urls[file.digest] = await self._uploaded(file)
        return urls

    async def _uploaded(self, file: LocalFile) -> str:
        now = self._clock()
        # What one API was given, such as a simulated one, is nothing to another.
        name = f"{file.digest} {self._calls.base_url}"
        url = await self._ledger.uploaded(name, after=now - UPLOAD_REUSE_S)
        if url is None:
            url = await self._calls.upload(
                file.data, filename=file.filename, content_type=file.content_type
            )
            await self._ledger.upload(name, url, now)
        return url

    async def _price(self, order: PreparedSubmit, input: Mapping[str, JSON]) -> float | None:
        if order.max_cost is None:
            return order.cost
        cost = order.cost
        if cost is None:
            cost = (await self._calls.price(order.model, input)).discounted
        if cost > order.max_cost:
            raise OverBudget(cost, order.max_cost)
        return cost

    def _address(self, context: JSON, webhook: bool | str, model: str, key: str) -> str | None:
        """Where the result is to be sent, with context and key sealed in."""
        if webhook is not True:
            if context is not None:
                how = "travels in the client's own webhook URL; leave `webhook` as it is"
                raise BadInput([Fault("context", how)])
            reason = urls.url_fault(webhook) if webhook else None
            if reason:
                raise BadInput([Fault("webhook", reason)])
            return webhook or None
        if self._public_url is None and context is not None:
            raise BadSettings("WAVEHOOK_PUBLIC_URL", "is needed: the context travels in its URL")
        if self._public_url is None:
            return None
        if self._seal is None:
            if self._seals:
                raise BadSettings(
                    "WAVEHOOK_SEAL_KEYS",
                    "is needed on PostgreSQL, with the same keys wherever tasks are submitted and "
                    "results received: `wavehook secret --seal-key` makes a key",
                )
            if context is not None:
                raise BadSettings(
                    "WAVEHOOK_SEAL_KEYS",
                    "is needed for a context: start `wavehook serve` once, which makes a key file "
                    "beside its database, or set the receiver's keys",
                )
            return urls.webhook_url(self._public_url, None)
        token = self._seal.seal(context, model=model, now=self._clock(), submission=key)
        return urls.webhook_url(self._public_url, token)

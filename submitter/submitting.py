"""The way of one submission: checked, written down, sent once, recorded.

Between the intent and the record there is no moment at which a killed process leaves a task that
the ledger does not know of: what was not recorded is doubted, and looked for in the history.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from submitter import address, catalogue, protocol
from submitter.calls import Calls
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
from submitter.flow import Flow
from submitter.ledger.base import Entry, Intent, Ledger, Result
from submitter.media import Prepared, prepare
from submitter.prediction import JSON, Prediction
from submitter.schedule import Schedule
from submitter.seal import Seal

MAX_KEY = 200

UPLOAD_DAY = 86400.0
"""Seconds for which a file is not uploaded again."""

REFUSALS = 10
"""How often a submit is sent again after a 429, which created nothing."""

RECORDING = 5
"""How often a record is tried in a ledger that is away."""

log = logging.getLogger("wavehook.submitter")


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be submitted, checked and not yet sent.

    Attributes:
        key: of the submission.
        model: the model's id.
        prepared: the input, with the local files it names.
        digest: of model and input as given.
        context: for the handlers.
        webhook: True: to the receiver; a URL: to there; False: nowhere.
        max_cost: USD; None: no price is asked for.
        cost: USD, where it is known already.
    """

    key: str
    model: str
    prepared: Prepared = field(repr=False)
    digest: str
    context: JSON = field(default=None, repr=False)
    webhook: bool | str = field(default=True, repr=False)
    max_cost: float | None = None
    cost: float | None = None


class Submitting:
    """Checks and sends.

    Args:
        calls: of the API.
        ledger: open.
        models: what is known of models.
        flow: gives places.
        schedule: when a result is overdue.
        public_url: of the receiver; None: no webhooks.
        seal: seals context and key into the webhook's URL; None: there is no token.
        timeout: seconds that the answer may take.
        clock: Unix seconds.
    """

    def __init__(
        self,
        calls: Calls,
        ledger: Ledger,
        *,
        models: Catalogue,
        flow: Flow,
        schedule: Schedule,
        public_url: str | None,
        seal: Seal | None,
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
        self._timeout = timeout
        self._clock = clock
        self._sending: set[asyncio.Task[tuple[Entry, Prediction]]] = set()

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
    ) -> Order:
        """Find everything that is wrong, before anything is sent.

        Raises:
            BadInput: with all faults, those that were given among them.
            BadSettings: a context needs a public URL and a seal.
        """
        faults = [*faults, *filter(None, [protocol.model_fault(model), _key_fault(key)])]
        known = None if faults else await self._models.model(model)
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
            faults += error.faults
        if faults:
            raise BadInput(faults)
        return Order(key, model, prepared, _digest(model, prepared), context, webhook, max_cost)

    async def known(self, order: Order) -> Entry | None:
        """The entry of this key, where it is paid for already or may be.

        Raises:
            BadInput: the key was used for something else.
        """
        entry = (await self._ledger.find([order.key])).get(order.key)
        if entry is None or entry.state == "rejected":
            return None
        _same(entry, order)
        return entry

    async def send(self, order: Order) -> tuple[Entry, Prediction | None]:
        """Send it, unless its key is paid for already; a 429 is waited for.

        Whoever cancels this cancels the waiting, not the request on its way.

        Returns:
            The entry, and the API's answer; None where this call sent nothing.
        """
        if (entry := await self.known(order)) is not None:
            return entry, None
        input = order.prepared.filled(await self._upload(order))
        cost = await self._price(order, input)
        refusals = 0
        while True:
            intended = await self._flow.place(lambda now: self._intent(order, input, cost, now))
            if not intended.fresh:
                _same(intended.entry, order)
                return intended.entry, None
            sending = asyncio.create_task(self._send(intended.entry, order))
            self._sending.add(sending)
            sending.add_done_callback(self._sent)
            try:
                return await asyncio.shield(sending)
            except RateLimited:
                refusals += 1
                if refusals == REFUSALS:
                    raise

    async def stop(self, grace: float) -> None:
        """Let requests on their way end; what takes longer is doubted.

        Args:
            grace: seconds.
        """
        if self._sending:
            _, late = await asyncio.wait(self._sending, timeout=grace)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _intent(
        self, order: Order, input: Mapping[str, JSON], cost: float | None, now: float
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

    async def _send(self, entry: Entry, order: Order) -> tuple[Entry, Prediction]:
        key, model = entry.key, entry.model
        url = self._address(order.context, order.webhook, model, key)
        try:
            prediction = await self._calls.post(model, entry.input, url, timeout=self._timeout)
        except RateLimited as error:
            await self._ledger.reject(key, "429: too many requests", self._clock())
            await self._flow.refused(error.retry_after)
            raise
        except (ApiError, Unavailable) as error:
            await self._ledger.reject(key, str(error), self._clock())
            raise
        except SubmissionUnknown as error:
            await self._doubt(key, error.reason)
            raise SubmissionUnknown(
                model, entry.sent_at, error.reason, status=error.status, key=key
            ) from None
        except asyncio.CancelledError:
            await self._doubt(key, "the process stopped before the answer came")
            raise
        self._flow.accepted()
        return await self._record(entry, prediction), prediction

    async def _doubt(self, key: str, reason: str) -> None:
        now = self._clock()
        ask_at = now + (self._schedule.look(0) or 0.0)
        try:
            await self._ledger.doubt(key, reason, now, ask_at=ask_at)
        except LedgerUnavailable as error:
            # It stays INTENDED, and is doubted when its time is over.
            log.warning("ledger.failed key=%s error=%s", key, error)

    async def _record(self, entry: Entry, prediction: Prediction) -> Entry:
        for left in reversed(range(RECORDING)):
            try:
                return await self._accept(entry, prediction)
            except LedgerUnavailable as error:
                log.warning(
                    "ledger.failed key=%s task_id=%s error=%s", entry.key, prediction.id, error
                )
                if left:
                    await asyncio.sleep(self._schedule.tick)
        # The task is paid for; the history brings it back to the ledger.
        return entry

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

    async def _upload(self, order: Order) -> dict[str, str]:
        urls: dict[str, str] = {}
        for file in order.prepared.files:
            now = self._clock()
            url = await self._ledger.uploaded(file.digest, after=now - UPLOAD_DAY)
            if url is None:
                url = await self._calls.upload(
                    file.data, filename=file.filename, content_type=file.content_type
                )
                await self._ledger.upload(file.digest, url, now)
            urls[file.digest] = url
        return urls

    async def _price(self, order: Order, input: Mapping[str, JSON]) -> float | None:
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
            reason = address.url_fault(webhook) if webhook else None
            if reason:
                raise BadInput([Fault("webhook", reason)])
            return webhook or None
        if self._public_url is None and context is not None:
            raise BadSettings("WAVEHOOK_PUBLIC_URL", "is needed: the context travels in its URL")
        if self._public_url is None:
            return None
        if self._seal is None:
            if context is not None:
                raise BadSettings("WAVEHOOK_SEAL_KEYS", "is needed: it seals the context")
            return address.webhook_url(self._public_url, None)
        token = self._seal.seal(context, model=model, now=self._clock(), submission=key)
        return address.webhook_url(self._public_url, token)


def _key_fault(key: str) -> Fault | None:
    if 0 < len(key) <= MAX_KEY and key.isprintable():
        return None
    return Fault("key", f"must be 1 to {MAX_KEY} printable characters")


def _digest(model: str, prepared: Prepared) -> str:
    given: Any = [model, prepared.input]
    try:
        text = json.dumps(given, sort_keys=True, separators=(",", ":"), allow_nan=False)
    # It has faults, which are told; nothing is sent.
    except (TypeError, ValueError, RecursionError):
        return ""
    return hashlib.sha256(text.encode()).hexdigest()


def _same(entry: Entry, order: Order) -> None:
    if entry.digest != order.digest:
        raise BadInput([Fault("key", "was used for another model or input; choose a new one")])

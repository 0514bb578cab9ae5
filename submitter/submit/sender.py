"""Sender of submits: checks the input, writes the intent, sends one request, records its response.

Read `check`, then `send`, then `_send`. The intent is in the ledger before the request goes out, so
a process killed at any point leaves an entry behind. An entry without a recorded response becomes
UNKNOWN, and the reconciler looks for its task in the API's history.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from weakref import WeakValueDictionary

from submitter import catalogue
from submitter.api import requests
from submitter.api.client import ApiClient
from submitter.api.urls import url_fault
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
from submitter.submit.files import LocalFile, PreparedInput, prepare
from submitter.submit.rate_limit import SubmitLimiter

UPLOAD_REUSE_S = 86400.0
"""Seconds for which an uploaded file's URL is used again; the API keeps files for 7 days."""

MAX_RATE_LIMITED_TRIES = 10
"""Tries of one submit that the API answers with 429, which creates nothing."""

MAX_RECORD_TRIES = 5
"""Tries to record a response while the ledger is unavailable."""

MAX_KEY_BYTES = 200
"""Bytes of an idempotency key, which is part of the webhook URL."""

log = logging.getLogger("wavehook.submitter")


@dataclass(frozen=True, slots=True)
class PreparedSubmit:
    """A submit that has been checked and not yet sent.

    Attributes:
        key: idempotency key.
        model: the model's id.
        prepared: the input and its local files.
        digest: SHA-256 of model and input.
        context: JSON for the handlers.
        webhook: True: the receiver's URL; a URL: used unchanged; False: no webhook.
        max_cost: USD; None: the price is not requested.
        cost: USD, if it is known already.
    """

    key: str
    model: str
    prepared: PreparedInput = field(repr=False)
    digest: str
    context: JSON = field(default=None, repr=False)
    webhook: bool | str = field(default=True, repr=False)
    max_cost: float | None = None
    cost: float | None = None


def webhook_url(public_url: str, token: str | None) -> str:
    """The URL of the receiver's `wavespeed` source, with or without a context token."""
    base = f"{public_url.rstrip('/')}/webhooks/wavespeed"
    return base if token is None else f"{base}/{token}"


def _key_fault(key: object) -> Fault | None:
    """The fault of a key, or None; callers often pass a number."""
    if isinstance(key, str) and key.isprintable() and 0 < len(key.encode()) <= MAX_KEY_BYTES:
        return None
    return Fault("key", f"must be 1 to {MAX_KEY_BYTES} bytes of printable text")


def _cap_fault(max_cost: object) -> Fault | None:
    """The fault of a price cap, or None; callers often pass text."""
    # NaN compares false with every price, and would let all of them pass.
    if max_cost is None or (isinstance(max_cost, int | float) and max_cost >= 0):
        return None
    return Fault("max_cost", "must be a number of USD, 0 or more")


def _digest(model: str, prepared: PreparedInput) -> str:
    """SHA-256 of model and input; files count by their content."""
    given = json.dumps([model, prepared.input], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(given.encode()).hexdigest()


def _check_same(entry: Entry, submit: PreparedSubmit) -> None:
    """Check that a known key belongs to the same model and input.

    Raises:
        BadInput: it belongs to another.
    """
    if entry.digest != submit.digest:
        raise BadInput([Fault("key", "was used for another model or input; choose a new one")])


class Sender:
    """Checks and sends the submits of one client.

    Args:
        api: an open client.
        ledger: open.
        models: the catalogue, for input schemas.
        limiter: rate limit and limit of running tasks.
        schedule: when a result is overdue.
        public_url: the receiver's base URL; None: no webhooks.
        seal: seals context and key into the webhook URL; None: URLs have no token.
        seal_required: a webhook without a seal is refused.
        timeout: seconds until the response.
        clock: Unix seconds.
    """

    def __init__(
        self,
        api: ApiClient,
        ledger: Ledger,
        *,
        models: Catalogue,
        limiter: SubmitLimiter,
        schedule: Schedule,
        public_url: str | None,
        seal: Seal | None,
        seal_required: bool = False,
        timeout: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._api = api
        self._ledger = ledger
        self._models = models
        self._limiter = limiter
        self._schedule = schedule
        self._public_url = public_url
        self._seal = seal
        self._seal_required = seal_required
        self._timeout = timeout
        self._clock = clock
        self._in_flight: set[asyncio.Task[tuple[Entry, Prediction]]] = set()
        self._upload_locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

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
        """Check a submit completely; nothing is sent.

        Raises:
            BadInput: with all faults, `faults` included; ContextTooLarge if that is the only one.
            BadSettings: a public URL or a seal is missing.
        """
        no_model = requests.model_fault(model)
        faults = [*faults, *filter(None, [no_model, _key_fault(key), _cap_fault(max_cost)])]
        known = None if no_model else await self._models.model(model)
        schema = (known.schema if known else None) or {}
        prepared = await asyncio.to_thread(prepare, input, schema)
        faults += prepared.faults
        known_paths = {fault.path for fault in faults}
        # Without a schema, only the API can check more than that the input is JSON.
        faults += [
            fault
            for fault in catalogue.check(schema, prepared.input)
            if fault.path not in known_paths
        ]
        try:
            self._webhook_url(context, webhook, model, key)
        except BadInput as error:
            if not faults:
                raise
            faults += error.faults
        if faults:
            raise BadInput(faults)
        return PreparedSubmit(
            key, model, prepared, _digest(model, prepared), context, webhook, max_cost
        )

    async def known(self, submit: PreparedSubmit) -> Entry | None:
        """The entry of this key if its task exists or may exist: it must not be sent again.

        Raises:
            BadInput: the key belongs to another model or input.
            LedgerUnavailable: the ledger cannot be read.
        """
        entry = (await self._ledger.find([submit.key])).get(submit.key)
        if entry is None or entry.state is State.REJECTED:
            return None
        _check_same(entry, submit)
        return entry

    async def send(self, submit: PreparedSubmit) -> tuple[Entry, Prediction | None]:
        """Send a submit once, unless its key was sent before; after a 429 it waits and sends again.

        Cancelling ends the wait, not a request that is in flight.

        Returns:
            The entry, and the task of the response; None if this call sent nothing.

        Raises:
            SubmitterError: as `WaveSpeed.submit`.
        """
        if (entry := await self.known(submit)) is not None:
            return entry, None
        input = submit.prepared.filled(await self._upload(submit))
        cost = await self._price(submit, input)
        refusals = 0
        while True:
            intended = await self._limiter.place(lambda now: self._intent(submit, input, cost, now))
            if not intended.fresh:
                _check_same(intended.entry, submit)
                return intended.entry, None
            sending = asyncio.create_task(self._send(intended.entry, submit))
            self._in_flight.add(sending)
            sending.add_done_callback(self._forget_request)
            try:
                return await asyncio.shield(sending)
            except RateLimited:
                refusals += 1
                if refusals == MAX_RATE_LIMITED_TRIES:
                    raise

    def open(self) -> None:
        """Accept submits."""
        self._limiter.open()

    async def stop(self, grace: float) -> None:
        """Wait for requests in flight; cancel those that take longer, which become UNKNOWN.

        Args:
            grace: seconds.
        """
        await self._limiter.stop()
        if self._in_flight:
            _, late = await asyncio.wait(self._in_flight, timeout=grace)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _intent(
        self, submit: PreparedSubmit, input: Mapping[str, JSON], cost: float | None, now: float
    ) -> Intent:
        return Intent(
            key=submit.key,
            model=submit.model,
            input=input,
            digest=submit.digest,
            # The timeout of the request, and a little more for recording its response.
            until=now + self._timeout + self._schedule.soon,
            context=submit.context,
            webhook=submit.webhook is True and self._public_url is not None,
            cost=cost,
        )

    async def _send(self, entry: Entry, submit: PreparedSubmit) -> tuple[Entry, Prediction]:
        key, model = entry.key, entry.model
        try:
            url = self._webhook_url(submit.context, submit.webhook, model, key)
            # After `until`, other processes may decide that no task exists, and send again.
            left = min(self._timeout, entry.until - self._clock())
            if left <= 0:
                raise Unavailable(
                    "the rate limit delayed it for too long", advice="nothing was sent"
                )
            prediction = await self._api.post(model, entry.input, url, timeout=left)
            self._limiter.accepted()
        except RateLimited as error:
            await self._write_or_warn(key, self._limiter.refused(error.retry_after))
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
            self._limiter.done()
        return await self._record_task(entry, prediction), prediction

    async def _reject(self, key: str, reason: str) -> None:
        await self._write_or_warn(key, self._ledger.reject(key, reason, self._clock()))

    async def _doubt(self, key: str, reason: str) -> None:
        now = self._clock()
        ask_at = now + (self._schedule.look(0) or 0.0)
        await self._write_or_warn(key, self._ledger.mark_unknown(key, reason, now, ask_at=ask_at))

    async def _write_or_warn(self, key: str, writing: Awaitable[object]) -> None:
        try:
            await writing
        except LedgerUnavailable as error:
            # The entry stays INTENDED, and counts as UNKNOWN after its `until`.
            log.warning("ledger.failed key=%s error=%s", key, error)

    async def _record_task(self, entry: Entry, prediction: Prediction) -> Entry:
        for left in reversed(range(MAX_RECORD_TRIES)):
            try:
                return await self._accept(entry, prediction)
            except LedgerUnavailable as error:
                log.warning(
                    "ledger.failed key=%s task_id=%s error=%s", entry.key, prediction.id, error
                )
                if left:
                    await asyncio.sleep(self._schedule.tick)
        # The task is billed; its webhook or the history brings it back to the ledger.
        return replace(entry, state=State.ACCEPTED, task_id=prediction.id)

    async def _accept(self, entry: Entry, prediction: Prediction) -> Entry:
        now = self._clock()
        known = await self._ledger.durations(entry.model)
        expected_at = now + self._schedule.expected(known, webhook=entry.webhook)
        accepted = await self._ledger.accept(entry.key, prediction, now, expected_at=expected_at)
        if prediction.terminal:
            await self._ledger.finish([Result(prediction, entry.key)], now)
        return accepted

    def _forget_request(self, task: asyncio.Task[tuple[Entry, Prediction]]) -> None:
        self._in_flight.discard(task)
        if not task.cancelled():
            task.exception()  # or asyncio warns if the caller was cancelled

    async def _upload(self, submit: PreparedSubmit) -> dict[str, str]:
        urls: dict[str, str] = {}
        for file in submit.prepared.files:
            # Concurrent submits of one file upload it once.
            async with self._upload_locks.setdefault(file.digest, asyncio.Lock()):
                urls[file.digest] = await self._uploaded(file)
        return urls

    async def _uploaded(self, file: LocalFile) -> str:
        now = self._clock()
        # An upload is valid at its own API only: a simulator's URL means nothing to the real one.
        name = f"{file.digest} {self._api.base_url}"
        url = await self._ledger.uploaded(name, after=now - UPLOAD_REUSE_S)
        if url is None:
            url = await self._api.upload(
                file.data, filename=file.filename, content_type=file.content_type
            )
            await self._ledger.upload(name, url, now)
        return url

    async def _price(self, submit: PreparedSubmit, input: Mapping[str, JSON]) -> float | None:
        if submit.max_cost is None:
            return submit.cost
        cost = submit.cost
        if cost is None:
            cost = (await self._api.price(submit.model, input)).discounted
        if cost > submit.max_cost:
            raise OverBudget(cost, submit.max_cost)
        return cost

    def _webhook_url(self, context: JSON, webhook: bool | str, model: str, key: str) -> str | None:
        """The URL for the webhook, with context and key sealed in; None for no webhook."""
        if webhook is not True:
            if context is not None:
                how = "travels in the client's own webhook URL; leave `webhook` as it is"
                raise BadInput([Fault("context", how)])
            reason = url_fault(webhook) if webhook else None
            if reason:
                raise BadInput([Fault("webhook", reason)])
            return webhook or None
        if self._public_url is None and context is not None:
            raise BadSettings("WAVEHOOK_PUBLIC_URL", "is needed: the context travels in its URL")
        if self._public_url is None:
            return None
        if self._seal is None:
            if self._seal_required:
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
            return webhook_url(self._public_url, None)
        token = self._seal.seal(context, model=model, now=self._clock(), submission=key)
        return webhook_url(self._public_url, token)

"""Webhook sender: delivers in the background, signed, with up to 3 retries, as the vendor does.

It signs with its own code, written from the vendor's documentation, so that a mistake in the
receiver's check cannot hide here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field

import httpx
import structlog
from cryptography.hazmat.primitives import hashes, hmac

from submitter.prediction import JSON
from submitter.simulator.clock import SimClock
from submitter.simulator.faults import FaultInjector, FaultKind
from submitter.simulator.tasks import Task


@dataclass(frozen=True, slots=True)
class WebhookAttempt:
    """One delivery attempt of a webhook, or the record that it was dropped.

    Attributes:
        task: the task's id.
        number: from 1; 0 for a webhook that was dropped on purpose.
        at: Unix seconds.
        to: the receiver's origin, without the path, which may hold a secret token.
        status: HTTP status of the receiver's response.
        error: the exception's class name if there was no response.
        faults: the injected faults.
    """

    task: str
    number: int
    at: float
    to: str
    status: int | None = None
    error: str | None = None
    faults: tuple[str, ...] = ()

    @property
    def accepted(self) -> bool:
        """True for a 2xx response."""
        return self.status is not None and 200 <= self.status < 300

    def as_json(self) -> dict[str, JSON]:
        """JSON object of `GET /simulator/webhooks`."""
        return {**asdict(self), "faults": list(self.faults)}


RETRY_DELAYS_S = (5.0, 10.0, 20.0)
"""Simulated seconds before each retry; the vendor documents the number of retries only."""

ATTEMPT_TIMEOUT_S = 30.0
"""Timeout of one attempt, in seconds."""

WEBHOOK_DELAY_S = 30.0
"""Simulated seconds by which `delay` is late; `reorder` waits no longer than this."""

STALE_AGE_S = 600
"""Age of a `stale` webhook's timestamp, in seconds."""

MAX_CONCURRENT_WEBHOOKS = 32
"""Concurrent attempts; more wait for a slot."""

_FAULTS_OF_EVERY_ATTEMPT = (
    FaultKind.STALE,
    FaultKind.DELAY,
    FaultKind.REORDER,
    FaultKind.EARLY_WEBHOOK,
    FaultKind.NULL_NSFW,
    FaultKind.OBJECT_OUTPUTS,
    FaultKind.MISSING_FIELDS,
)
"""Faults that every attempt of a task has in common."""


def sign(secret: str, message: str, timestamp: int, body: bytes) -> str:
    """Vendor's signature: `v3,` and the HMAC-SHA256 of id, time and raw body in hex.

    Args:
        secret: with or without `whsec_`; the rest is the key itself, not base64.
        message: the webhook id.
        timestamp: Unix seconds.
        body: the raw body.
    """
    mac = hmac.HMAC(secret.removeprefix("whsec_").encode(), hashes.SHA256())
    mac.update(f"{message}.{timestamp}.".encode())
    mac.update(body)
    return f"v3,{mac.finalize().hex()}"


@dataclass(frozen=True, slots=True)
class _SignedWebhook:
    """Request of a webhook; every attempt sends the same."""

    url: httpx.URL
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


class WebhookSender:
    """Delivers the webhooks of tasks.

    Args:
        client: HTTP client.
        secret: signs the webhooks.
        injector: decides on faults.
        sim_clock: sleeps before deliveries and retries.
        clock: Unix seconds.
        render: makes the body for a task at a Unix time.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        *,
        secret: str,
        injector: FaultInjector,
        sim_clock: SimClock,
        clock: Callable[[], float],
        render: Callable[[Task, float], bytes],
    ) -> None:
        self.attempts: list[WebhookAttempt] = []
        self._client = client
        self._secret = secret
        self._injector = injector
        self._sim_clock = sim_clock
        self._clock = clock
        self._render = render
        self._slots = asyncio.Semaphore(MAX_CONCURRENT_WEBHOOKS)
        self._running: set[asyncio.Task[None]] = set()
        self._held: asyncio.Future[None] | None = None

    def schedule(self, task: Task, url: str) -> asyncio.Event:
        """Deliver a task's webhook when the task ends.

        Returns:
            An event that is set after the first attempt, or when the delivery ends without one.
        """
        first = asyncio.Event()
        running = asyncio.create_task(self._deliver(task, httpx.URL(url), first))
        self._running.add(running)
        running.add_done_callback(lambda _: first.set())
        running.add_done_callback(self._finished)
        return first

    async def stop(self) -> None:
        """Cancel every delivery."""
        running = tuple(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _finished(self, running: asyncio.Task[None]) -> None:
        self._running.discard(running)
        if not running.cancelled() and (error := running.exception()):
            structlog.get_logger().error("simulator.webhook_failed", exc_info=error)

    async def _deliver(self, task: Task, url: httpx.URL, first: asyncio.Event) -> None:
        await self._wait_until_due(task)
        if self._injector.hits(FaultKind.DROP, task.number):
            self._record(task, 0, url, faults=(FaultKind.DROP,))
        else:
            await self._send(task, self._signed(task, url), first)

    async def _wait_until_due(self, task: Task) -> None:
        await self._sim_clock.sleep(task.run_time, since=task.created)
        if self._injector.hits(FaultKind.EARLY_WEBHOOK, task.number):
            return
        if self._injector.hits(FaultKind.DELAY, task.number):
            await self._sim_clock.sleep(task.run_time + WEBHOOK_DELAY_S, since=task.created)
        if self._injector.hits(FaultKind.REORDER, task.number) and self._held is None:
            held = self._held = asyncio.get_running_loop().create_future()
            await self._sim_clock.sleep(WEBHOOK_DELAY_S, until=held)
            if self._held is held:  # Timed out: no other webhook was sent.
                self._held = None

    async def _send(self, task: Task, webhook: _SignedWebhook, first: asyncio.Event) -> None:
        delays = iter(RETRY_DELAYS_S)
        number = 1
        while True:
            attempt = await self._attempt(task, webhook, number)
            first.set()
            if self._held:
                self._held.set_result(None)
                self._held = None
            if attempt.accepted:
                break
            delay = next(delays, None)
            if delay is None:
                return
            await self._sim_clock.sleep(delay)
            number += 1
        if self._injector.hits(FaultKind.DUPLICATE, task.number):
            await self._attempt(task, webhook, number + 1, (FaultKind.DUPLICATE,))

    def _signed(self, task: Task, url: httpx.URL) -> _SignedWebhook:
        age = STALE_AGE_S if self._injector.hits(FaultKind.STALE, task.number) else 0
        timestamp = int(task.ended_at) - age
        body = self._render(task, max(self._clock(), task.ended_at))
        headers = {
            "Content-Type": "application/json",
            # As in the vendor's own sample, the webhook id is the task id.
            "webhook-id": task.id,
            # The vendor documents "when the event was generated": retries carry the same time.
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(self._secret, task.id, timestamp, body),
        }
        return _SignedWebhook(url, headers, body)

    async def _attempt(
        self, task: Task, webhook: _SignedWebhook, number: int, more: tuple[str, ...] = ()
    ) -> WebhookAttempt:
        headers = dict(webhook.headers)
        if number == 1 and self._injector.hits(FaultKind.BAD_SIGNATURE, task.number):
            headers["webhook-signature"] = sign("whsec_wrong", task.id, 0, webhook.body)
            more = (*more, FaultKind.BAD_SIGNATURE)
        hit = (
            fault for fault in _FAULTS_OF_EVERY_ATTEMPT if self._injector.hits(fault, task.number)
        )
        faults = (*hit, *more)
        try:
            async with self._slots:
                response = await self._client.post(
                    webhook.url, content=webhook.body, headers=headers
                )
        # UnicodeError: a host name that cannot be looked up in DNS.
        except (httpx.HTTPError, UnicodeError) as error:
            name = type(error).__name__
            return self._record(task, number, webhook.url, error=name, faults=faults)
        return self._record(task, number, webhook.url, status=response.status_code, faults=faults)

    def _record(
        self,
        task: Task,
        number: int,
        url: httpx.URL,
        *,
        status: int | None = None,
        error: str | None = None,
        faults: tuple[str, ...],
    ) -> WebhookAttempt:
        origin = f"{url.scheme}://{url.netloc.decode()}"
        attempt = WebhookAttempt(task.id, number, self._clock(), origin, status, error, faults)
        self.attempts.append(attempt)
        return attempt

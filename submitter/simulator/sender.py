"""Sends webhooks as the vendor does: signed, up to 3 retries, and nobody waits for them.

The signature is made here from the vendor's recipe, and shares no line with the receiver's check.

What is kept of each attempt at a webhook.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field

import httpx
import structlog
from cryptography.hazmat.primitives import hashes, hmac

from submitter.prediction import JSON
from submitter.simulator.clock import Pace
from submitter.simulator.faults import Fault, Plan
from submitter.simulator.tasks import Task


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at a webhook, or its absence.

    Attributes:
        task: the task's id.
        number: from 1; 0 where the webhook was dropped on purpose.
        at: Unix seconds.
        to: the receiver's origin; its path may hold a secret token and is not kept.
        status: of the receiver's answer.
        error: why there was no answer.
        faults: what was wrong with it on purpose.
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
        """Whether the receiver answered 2xx."""
        return self.status is not None and 200 <= self.status < 300

    def as_json(self) -> dict[str, JSON]:
        """For the simulator's own log endpoint."""
        return {**asdict(self), "faults": list(self.faults)}


BACKOFF = (5.0, 10.0, 20.0)
"""Seconds of life before each retry; the vendor publishes their number only."""

TIMEOUT = 30.0
"""Seconds for one attempt."""

LATE = 30.0
"""Seconds of life by which `delay` is late, and which `reorder` waits at most."""

OLD = 600
"""Seconds by which `stale` is too old."""

AT_ONCE = 32
"""Webhooks that are under way at one time; the others wait for their turn."""

_LASTING = (
    Fault.STALE,
    Fault.DELAY,
    Fault.REORDER,
    Fault.EARLY_WEBHOOK,
    Fault.NULL_NSFW,
    Fault.OBJECT_OUTPUTS,
    Fault.MISSING_FIELDS,
)
"""What is wrong with every attempt of one task."""


def sign(secret: str, message: str, timestamp: int, body: bytes) -> str:
    """The vendor's signature: v3, hex, over id, time and raw body.

    Args:
        secret: with or without `whsec_`; what follows is the key as it stands, not base64.
        message: the webhook id.
        timestamp: Unix seconds.
        body: the raw body.
    """
    mac = hmac.HMAC(secret.removeprefix("whsec_").encode(), hashes.SHA256())
    mac.update(f"{message}.{timestamp}.".encode())
    mac.update(body)
    return f"v3,{mac.finalize().hex()}"


@dataclass(frozen=True, slots=True)
class _Message:
    """What is sent, and resent as it is."""

    url: httpx.URL
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


class Sender:
    """Delivers the webhooks of tasks.

    Args:
        client: sends them.
        secret: signs them.
        plan: spoils them.
        pace: of waits and retries.
        clock: Unix seconds.
        render: the body for a task at a time.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        *,
        secret: str,
        plan: Plan,
        pace: Pace,
        clock: Callable[[], float],
        render: Callable[[Task, float], bytes],
    ) -> None:
        self.attempts: list[Attempt] = []
        self._client = client
        self._secret = secret
        self._plan = plan
        self._pace = pace
        self._clock = clock
        self._render = render
        self._sending = asyncio.Semaphore(AT_ONCE)
        self._running: set[asyncio.Task[None]] = set()
        self._held: asyncio.Future[None] | None = None

    def schedule(self, task: Task, url: str) -> asyncio.Event:
        """Deliver a task's webhook when the task has ended.

        Returns:
            What is set once the first attempt is over, or given up.
        """
        first = asyncio.Event()
        running = asyncio.create_task(self._deliver(task, httpx.URL(url), first))
        self._running.add(running)
        running.add_done_callback(lambda _: first.set())
        running.add_done_callback(self._finished)
        return first

    async def stop(self) -> None:
        """Drop every webhook that is on its way."""
        running = tuple(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _finished(self, running: asyncio.Task[None]) -> None:
        self._running.discard(running)
        if not running.cancelled() and (error := running.exception()):
            structlog.get_logger().error("simulator.webhook_failed", exc_info=error)

    async def _deliver(self, task: Task, url: httpx.URL, first: asyncio.Event) -> None:
        await self._wait(task)
        if self._plan.hits(Fault.DROP, task.number):
            self._note(task, 0, url, faults=(Fault.DROP,))
        else:
            await self._send(task, self._message(task, url), first)

    async def _wait(self, task: Task) -> None:
        await self._pace.sleep(task.life, since=task.created)
        if self._plan.hits(Fault.EARLY_WEBHOOK, task.number):
            return
        if self._plan.hits(Fault.DELAY, task.number):
            await self._pace.sleep(task.life + LATE, since=task.created)
        if self._plan.hits(Fault.REORDER, task.number) and self._held is None:
            held = self._held = asyncio.get_running_loop().create_future()
            await self._pace.sleep(LATE, until=held)
            if self._held is held:  # No other webhook came by.
                self._held = None

    async def _send(self, task: Task, message: _Message, first: asyncio.Event) -> None:
        waits = iter(BACKOFF)
        number = 1
        while True:
            attempt = await self._attempt(task, message, number)
            first.set()
            if self._held:
                self._held.set_result(None)
                self._held = None
            if attempt.accepted:
                break
            wait = next(waits, None)
            if wait is None:
                return
            await self._pace.sleep(wait)
            number += 1
        if self._plan.hits(Fault.DUPLICATE, task.number):
            await self._attempt(task, message, number + 1, (Fault.DUPLICATE,))

    def _message(self, task: Task, url: httpx.URL) -> _Message:
        stale = OLD if self._plan.hits(Fault.STALE, task.number) else 0
        timestamp = int(task.ended_at) - stale
        body = self._render(task, max(self._clock(), task.ended_at))
        headers = {
            "Content-Type": "application/json",
            # In the vendor's own sample the id of the webhook is the id of the task.
            "webhook-id": task.id,
            # "When the event was generated": retries carry it unchanged.
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(self._secret, task.id, timestamp, body),
        }
        return _Message(url, headers, body)

    async def _attempt(
        self, task: Task, message: _Message, number: int, more: tuple[str, ...] = ()
    ) -> Attempt:
        headers = dict(message.headers)
        if number == 1 and self._plan.hits(Fault.BAD_SIGNATURE, task.number):
            headers["webhook-signature"] = sign("whsec_wrong", task.id, 0, message.body)
            more = (*more, Fault.BAD_SIGNATURE)
        hit = (fault for fault in _LASTING if self._plan.hits(fault, task.number))
        faults = (*hit, *more)
        try:
            async with self._sending:
                answer = await self._client.post(message.url, content=message.body, headers=headers)
        # UnicodeError: a host that no name service could be asked for.
        except (httpx.HTTPError, UnicodeError) as error:
            kind = type(error).__name__
            return self._note(task, number, message.url, error=kind, faults=faults)
        return self._note(task, number, message.url, status=answer.status_code, faults=faults)

    def _note(
        self,
        task: Task,
        number: int,
        url: httpx.URL,
        *,
        status: int | None = None,
        error: str | None = None,
        faults: tuple[str, ...],
    ) -> Attempt:
        origin = f"{url.scheme}://{url.netloc.decode()}"
        attempt = Attempt(task.id, number, self._clock(), origin, status, error, faults)
        self.attempts.append(attempt)
        return attempt

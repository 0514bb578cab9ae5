"""The ack path: a POST becomes a Delivery, and the outcome of `Intake.accept` becomes a status.

Raw ASGI without Request and Response objects, because acknowledging deliveries is the program's
purpose: every microsecond here is paid by every delivery.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError, Task, current_task
from collections.abc import Awaitable, Callable, Iterable, Sequence
from json.encoder import encode_basestring_ascii as quoted
from time import perf_counter
from typing import Any, cast

from starlette.types import Receive, Scope, Send

from receiver.errors import (
    ApiUnavailable,
    BodyEncoded,
    BodyTooLarge,
    BodyTooSlow,
    Rejected,
    Stale,
    StoreError,
    StoreUnavailable,
    UnknownSource,
)
from receiver.event import Delivery
from receiver.handlers.retry import describe
from receiver.intake import Accepted, Intake
from receiver.telemetry import Hook, TelemetryEvent
from receiver.telemetry.log import logger
from receiver.web.lifecycle import Lifecycle
from receiver.web.middleware import LOG_FIELDS_KEY, send_problem

RETRY_AFTER_S = 5
"""Retry-After of a 503 whose error does not name a time."""

_JSON = (b"content-type", b"application/json")


class Ingest:
    """The endpoint of `POST /webhooks/{source}` and `POST /webhooks/{source}/{token}`.

    Args:
        intake: accepts deliveries.
        lifecycle: opens the store on the first delivery.
        hooks: called for every delivery.
        clock: Unix seconds.
        max_body: bytes.
        body_deadline: seconds for the whole body to arrive.
        drain: runs handlers before the response, if dispatch is inline.
        flush_ledger: writes results to the ledger, within a time limit; awaited before the
            response if the process may be frozen after it.
    """

    def __init__(
        self,
        intake: Intake,
        lifecycle: Lifecycle,
        *,
        hooks: Sequence[Hook],
        clock: Callable[[], float],
        max_body: int,
        body_deadline: float,
        drain: Callable[[], Awaitable[object]] | None = None,
        flush_ledger: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self._intake = intake
        self._lifecycle = lifecycle
        self._hooks = tuple(hooks)
        self._clock = clock
        self._max_body = max_body
        self._deadline = ReadDeadline(body_deadline)
        self._drain = drain
        self._flush_ledger = flush_ledger
        self._log = logger()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Accept one delivery, then answer it."""
        started = perf_counter()
        fields: dict[str, Any] = scope[LOG_FIELDS_KEY]
        params = scope["path_params"]
        source = params["source"]
        body = None
        try:
            # Checked before the body is read: an unknown source must not fill the memory.
            if source not in self._intake.sources:
                raise UnknownSource
            fields["source"] = source
            body = await self._read(scope["headers"], receive)
            if body is None:
                fields["result"] = "disconnected"
                self._emit("delivery.rejected", fields, started)
                return
            fields["received"] = len(body)
            accepted = await self._accept(
                Delivery(source, tuple(scope["headers"]), body, params.get("token"), self._clock())
            )
        except Rejected as error:
            fields["result"] = error.reason
            close = body is None
            # A sender that was too slow does not get more time.
            unread = receive if close and not isinstance(error, BodyTooSlow) else None
            await send_problem(scope, send, error.status, error.title, close=close, unread=unread)
            skew = error.skew if isinstance(error, Stale) else None
            self._emit("delivery.rejected", fields, started, status=error.status, skew=skew)
            return
        except Exception as error:  # noqa: BLE001 - a 503 makes the sender try again
            await self._fail(error, scope, send, started, close=body is None)
            return
        if self._drain is not None:
            try:
                await self._drain()
            except Exception as error:  # noqa: BLE001 - the event is stored; the sender is done
                self._log.error("drain.failed", request_id=fields["request_id"], exc_info=error)
        if self._flush_ledger is not None and not self._lifecycle.keeps_running:
            await self._flush_ledger()
        receipt = accepted.receipt
        duplicate = receipt.duplicate
        fields["result"] = "duplicate" if duplicate else "new"
        fields["event_id"] = receipt.id
        fields["type"] = accepted.event.type
        answer = b'{"id": %b, "duplicate": %b}' % (
            quoted(receipt.id).encode(),
            b"true" if duplicate else b"false",
        )
        headers = [_JSON, (b"content-length", b"%d" % len(answer))]
        status = 200 if duplicate else 202
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})
        self._emit("delivery.accepted", fields, started, status=status)

    async def _read(self, headers: Iterable[tuple[bytes, bytes]], receive: Receive) -> bytes | None:
        """The whole body; None if the sender closed the connection before its end."""
        self._check_headers(headers)
        limit = self._max_body
        # One buffer: a list of chunks costs 40 bytes each, and a sender may send single bytes.
        buffer = bytearray()
        task = cast("Task[Any]", current_task())
        self._deadline.begin(task)
        try:
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    return None
                chunk: bytes = message.get("body", b"")
                if len(buffer) + len(chunk) > limit:
                    raise BodyTooLarge
                if not message.get("more_body", False):
                    return bytes(buffer + chunk) if buffer else chunk
                buffer += chunk
        except CancelledError:
            if self._deadline.end(task):
                raise BodyTooSlow from None
            raise
        finally:
            self._deadline.end(task)

    def _check_headers(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Refuse a body that is too large or encoded before it is read."""
        for name, value in headers:
            if name == b"content-length":
                # More than 18 digits exceed every limit, and int() refuses very long ones.
                if value.isdigit() and (len(value) > 18 or int(value) > self._max_body):
                    raise BodyTooLarge
            elif name == b"content-encoding" and value.lower() not in {b"identity", b""}:
                raise BodyEncoded

    async def _accept(self, delivery: Delivery) -> Accepted:
        try:
            return await self._intake.accept(delivery)
        except StoreUnavailable:
            # Without a lifespan the store is opened here, and so only after verification.
            if self._lifecycle.started:
                raise
            await self._lifecycle.ensure()
            return await self._intake.accept(delivery)

    async def _fail(
        self, error: Exception, scope: Scope, send: Send, started: float, *, close: bool
    ) -> None:
        """Answer 503, whatever failed: the sender keeps what is not stored, and retries."""
        fields: dict[str, Any] = scope[LOG_FIELDS_KEY]
        seconds = RETRY_AFTER_S
        if isinstance(error, StoreUnavailable | ApiUnavailable):
            seconds = error.retry_after
        if isinstance(error, StoreError):
            fields["result"], text = "unavailable", describe(error)
            self._emit("store.failed", fields, started, error=text)
        elif isinstance(error, ApiUnavailable):
            fields["result"], text = "api_unavailable", describe(error)
        else:
            # Only the class: the text of an unexpected error may quote the body.
            fields["result"], text = "error", type(error).__name__
            self._log.error("delivery.failed", exc_info=error, **fields)
        title = "The delivery could not be stored; send it again"
        headers = [(b"retry-after", b"%d" % seconds)]
        await send_problem(scope, send, 503, title, headers=headers, close=close)
        self._emit("delivery.failed", fields, started, status=503, error=text)

    def _emit(
        self,
        name: str,
        fields: dict[str, Any],
        started: float,
        *,
        status: int | None = None,
        error: str | None = None,
        skew: float | None = None,
    ) -> None:
        if not self._hooks:
            return
        event = TelemetryEvent(
            name,
            source=fields.get("source"),
            event_id=fields.get("event_id"),
            type=fields.get("type"),
            result=fields["result"],
            seconds=perf_counter() - started,
            error=error,
            status=status,
            request_id=fields["request_id"],
            skew=skew,
        )
        for hook in self._hooks:
            hook(event)


class ReadDeadline:
    """One timeout for many reads, with a single timer.

    All reads have the same limit, so they reach it in the order in which they began. A timer for
    each, as `asyncio.timeout` makes, costs 6 µs more of the app's 51 µs a delivery
    (tests/bench/test_ack.py, the app alone).

    Args:
        seconds: the limit.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._due: dict[Task[Any], float] = {}
        self._late: set[Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, task: Task[Any]) -> None:
        """Start the time of a task that is about to wait; past the limit it is cancelled."""
        loop = task.get_loop()
        self._due[task] = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._sweep, loop)

    def end(self, task: Task[Any]) -> bool:
        """Stop the time; True if it was over, and the cancellation is then undone."""
        self._due.pop(task, None)
        if task not in self._late:
            return False
        self._late.discard(task)
        task.uncancel()
        return True

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        while self._due:
            task, due = next(iter(self._due.items()))
            if due > now:
                self._timer = loop.call_at(due, self._sweep, loop)
                return
            del self._due[task]
            self._late.add(task)
            task.cancel()

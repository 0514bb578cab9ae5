"""The ack path: a POST becomes a Delivery, and what `intake` says becomes a status.

Raw ASGI without Request and Response objects: this is what the program exists for.

One time limit for many reads at once, with one timer instead of one for each of them.

All of them have the same limit, so they pass it in the order in which they began.

The route of deliveries: as Starlette's, without a regular expression for each of them.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError, Task, current_task
from collections.abc import Awaitable, Callable, Iterable, Sequence
from json.encoder import encode_basestring_ascii as quoted
from time import perf_counter
from typing import Any, cast

from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

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


class Deadline:
    """Cancels the tasks that are still between `begin` and `end` after a while.

    Args:
        seconds: the limit.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._due: dict[asyncio.Task[Any], float] = {}
        self._late: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, task: asyncio.Task[Any]) -> None:
        """Start the clock of a task that is about to wait."""
        loop = task.get_loop()
        self._due[task] = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._sweep, loop)

    def end(self, task: asyncio.Task[Any]) -> bool:
        """Stop it; True where the task was cancelled by it, and the cancellation is undone."""
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


RETRY_AFTER = 5
"""Seconds after which a sender should come again where nobody knows better."""

_JSON = (b"content-type", b"application/json")
_UNAVAILABLE = "The delivery could not be stored; send it again"


class Ingest:
    """The endpoint of `POST /webhooks/{source}` and `POST /webhooks/{source}/{token}`.

    Args:
        intake: takes deliveries in.
        lifecycle: opens the store at the first need.
        hooks: are told of every delivery.
        clock: Unix seconds.
        max_body: bytes.
        body_deadline: seconds for the whole body to arrive.
        drain: runs handlers before the reply, where dispatch is inline.
        follow: does what else there is to do about what was stored, within a time limit; awaited
            where the process may halt after the reply (F41).
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
        follow: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self._intake = intake
        self._lifecycle = lifecycle
        self._hooks = tuple(hooks)
        self._clock = clock
        self._max_body = max_body
        self._deadline = Deadline(body_deadline)
        self._drain = drain
        self._follow = follow
        self._log = logger()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one delivery in, and answer."""
        started = perf_counter()
        line: dict[str, Any] = scope[LOG_FIELDS_KEY]
        params = scope["path_params"]
        source = params["source"]
        body = None
        try:
            # Asked here too, so that nobody fills our memory on behalf of no source.
            if source not in self._intake.sources:
                raise UnknownSource
            line["source"] = source
            body = await self._read(scope["headers"], receive)
            if body is None:
                line["result"] = "disconnected"
                self._tell("delivery.rejected", line, started)
                return
            line["received"] = len(body)
            accepted = await self._accept(
                Delivery(source, tuple(scope["headers"]), body, params.get("token"), self._clock())
            )
        except Rejected as error:
            line["result"] = error.reason
            close = body is None
            # A slow sender has had its time.
            unread = receive if close and not isinstance(error, BodyTooSlow) else None
            await send_problem(scope, send, error.status, error.title, close=close, unread=unread)
            skew = error.skew if isinstance(error, Stale) else None
            self._tell("delivery.rejected", line, started, status=error.status, skew=skew)
            return
        except Exception as error:  # noqa: BLE001 - the sender keeps it and comes again
            await self._fail(error, scope, send, started, close=body is None)
            return
        if self._drain is not None:
            await self._dispatch(line)
        if self._follow is not None and not self._lifecycle.lasts:
            await self._follow()
        receipt = accepted.receipt
        duplicate = receipt.duplicate
        line["result"] = "duplicate" if duplicate else "new"
        line["event_id"] = receipt.id
        line["type"] = accepted.event.type
        answer = b'{"id": %b, "duplicate": %b}' % (
            quoted(receipt.id).encode(),
            b"true" if duplicate else b"false",
        )
        headers = [_JSON, (b"content-length", b"%d" % len(answer))]
        status = 200 if duplicate else 202
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})
        self._tell("delivery.accepted", line, started, status=status)

    async def _read(self, headers: Iterable[tuple[bytes, bytes]], receive: Receive) -> bytes | None:
        """The whole body; None where the sender left before its end."""
        self._check(headers)
        limit = self._max_body
        # One buffer: a list of chunks costs 40 bytes for each, and a sender may choose one byte.
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

    def _check(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """What the headers alone say against the body."""
        for name, value in headers:
            if name == b"content-length":
                # Longer than 18 digits is more than any limit, and than int() takes at last.
                if value.isdigit() and (len(value) > 18 or int(value) > self._max_body):
                    raise BodyTooLarge
            elif name == b"content-encoding" and value.lower() not in {b"identity", b""}:
                raise BodyEncoded

    async def _accept(self, delivery: Delivery) -> Accepted:
        try:
            return await self._intake.accept(delivery)
        except StoreUnavailable:
            # A store that nobody has opened yet is asked only now: after verification (F4, F41).
            if self._lifecycle.started:
                raise
            await self._lifecycle.ensure()
            return await self._intake.accept(delivery)

    async def _dispatch(self, line: dict[str, Any]) -> None:
        assert self._drain is not None  # noqa: S101 - for the type checker
        try:
            await self._drain()
        except Exception as error:  # noqa: BLE001 - the event is stored: the sender is done
            self._log.error("drain.failed", request_id=line["request_id"], exc_info=error)

    async def _fail(
        self, error: Exception, scope: Scope, send: Send, started: float, *, close: bool
    ) -> None:
        """Answer 503: what is not stored stays with the sender, whoever is to blame."""
        line: dict[str, Any] = scope[LOG_FIELDS_KEY]
        seconds = RETRY_AFTER
        if isinstance(error, StoreUnavailable | ApiUnavailable):
            seconds = error.retry_after
        if isinstance(error, StoreError):
            line["result"], text = "unavailable", describe(error)
            self._tell("store.failed", line, started, error=text)
        elif isinstance(error, ApiUnavailable):
            line["result"], text = "api_unavailable", describe(error)
        else:
            # Its text may quote the body (F16); where it was raised says enough.
            line["result"], text = "error", type(error).__name__
            self._log.error("delivery.failed", exc_info=error, **line)
        headers = [(b"retry-after", b"%d" % seconds)]
        await send_problem(scope, send, 503, _UNAVAILABLE, headers=headers, close=close)
        self._tell("delivery.failed", line, started, status=503, error=text)

    def _tell(
        self,
        name: str,
        line: dict[str, Any],
        started: float,
        *,
        status: int | None = None,
        error: str | None = None,
        skew: float | None = None,
    ) -> None:
        if not self._hooks:
            return
        details = TelemetryEvent(
            name,
            source=line.get("source"),
            event_id=line.get("event_id"),
            type=line.get("type"),
            result=line["result"],
            seconds=perf_counter() - started,
            error=error,
            status=status,
            request_id=line["request_id"],
            skew=skew,
        )
        for hook in self._hooks:
            hook(details)


class SegmentRoute(Route):
    """A route of a fixed prefix and named segments, each of them one or more characters.

    Args:
        prefix: such as `/webhooks/`.
        names: of the segments that follow it.
        endpoint: an ASGI app; gets the segments as `path_params`. Takes POST only.
    """

    def __init__(self, prefix: str, names: tuple[str, ...], endpoint: ASGIApp) -> None:
        path = prefix + "/".join(f"{{{name}}}" for name in names)
        super().__init__(path, endpoint, methods=["POST"])
        self._prefix = prefix
        self._names = names

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """See `starlette.routing.Route.matches`."""
        if scope["type"] == "http":
            path = scope["path"].removeprefix(scope.get("root_path", ""))
            if path.startswith(self._prefix):
                parts = path[len(self._prefix) :].split("/")
                if len(parts) == len(self._names) and all(parts):
                    params = dict(zip(self._names, parts, strict=True))
                    found = {"endpoint": self.endpoint, "path_params": params}
                    return Match.FULL if scope["method"] == "POST" else Match.PARTIAL, found
        return Match.NONE, {}

"""Results over HTTP, for who submits elsewhere: one task's, or all from a number on, by long poll.

Everything here needs the admin token. A purged event is still a result: its status is known, its
prediction and context are null.

`/api/drain`: a schedule has done what is due, where no process of ours goes on by itself.

POST; and GET too, because one platform's schedule knows no other method
(https://vercel.com/docs/cron-jobs). It needs the admin token.

Who may use `/api`: whoever shows the admin token.

The values of a query, checked.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from hmac import compare_digest
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive

from receiver.errors import StoreError, StoreUnavailable
from receiver.event import Event
from receiver.handlers.retry import describe
from receiver.results.long_poll import ResultWaiters
from receiver.sources.base import MAX_ID
from receiver.telemetry import Hook, TelemetryEvent
from receiver.web.lifecycle import Lifecycle
from receiver.web.middleware import LOG_FIELDS_KEY


class Admin:
    """Lets in by the token.

    Args:
        token: of the settings.
    """

    def __init__(self, token: str) -> None:
        if not token:
            raise ValueError("token: expected text; an empty one would let everybody in")
        self._token = token.encode()

    def admit(self, request: Request) -> None:
        """Let a request in, or refuse it with 401."""
        values = [value for name, value in request.scope["headers"] if name == b"authorization"]
        scheme, _, token = values[0].partition(b" ") if len(values) == 1 else (b"", b"", b"")
        if not (scheme.lower() == b"bearer" and compare_digest(token.strip(), self._token)):
            title = "Expected the header Authorization: Bearer, with the receiver's admin token"
            raise HTTPException(401, title, {"www-authenticate": "Bearer"})


WHOLE = re.compile(r"[0-9]{1,18}")
"""A number that every database can hold."""


class Value(NamedTuple):
    """What one value of a query may be."""

    read: Callable[[str], float]
    pattern: re.Pattern[str]
    least: float
    most: float
    expected: str


def asked(request: Request, values: Mapping[str, Value]) -> Mapping[str, float]:
    """The values of a query, each of which may be left out.

    Args:
        request: with the query; what cannot be right is answered with 400.
        values: all that may be asked with.
    """
    found: dict[str, float] = {}
    for name, text in request.query_params.multi_items():
        # A misspelt `wait` that is passed over would turn a long poll into a busy one.
        if name not in values:
            raise HTTPException(400, f"Query: expected nothing but {', '.join(values)}")
        value = values[name]
        number = value.read(text) if value.pattern.fullmatch(text) else -1
        if name in found or not value.least <= number <= value.most:
            raise HTTPException(400, f"{name}: expected {value.expected}, once")
        found[name] = number
    return found


T = TypeVar("T")

WAITING = 1000
"""Requests that wait at one time, at most; each holds a connection."""

RETRY_AFTER = 5
"""Seconds after which to come again where nobody knows better."""

LIMIT = 100
"""Predictions of one answer, at most, and where nothing else is asked for."""

_NO_STORE = MappingProxyType({"cache-control": "no-store"})


_WAIT = Value(float, re.compile(r"[0-9]{1,2}(\.[0-9]{1,3})?"), 0, 60, "seconds from 0 to 60")
_OF_ONE: Mapping[str, Value] = MappingProxyType({"wait": _WAIT})
_OF_ALL: Mapping[str, Value] = MappingProxyType(
    {
        "after": Value(int, WHOLE, 0, 10**18, "the cursor of the answer before"),
        "wait": _WAIT,
        "limit": Value(int, WHOLE, 1, LIMIT, f"a whole number from 1 to {LIMIT}"),
    }
)


def api_routes(
    results: ResultWaiters,
    token: str,
    lifecycle: Lifecycle,
    *,
    hooks: Sequence[Hook] = (),
    waiting: int = WAITING,
) -> list[BaseRoute]:
    """The routes of `/api/predictions`, for `create_app`.

    Args:
        results: gives out events, and waits for them.
        token: the admin token.
        lifecycle: opens the store at the first need.
        hooks: are told where the store does not answer.
        waiting: requests that may wait at one time; the next one is told 503.
    """
    api = _Api(results, token, lifecycle, hooks, waiting)
    return [_Get("/api/predictions", api.news), _Get("/api/predictions/{id}", api.prediction)]


class _Get(Route):
    """A route of GET alone: a HEAD would wait as long as a GET, for nothing."""

    def __init__(self, path: str, endpoint: Callable[[Request], Awaitable[Response]]) -> None:
        super().__init__(path, endpoint, methods=["GET"])
        self.methods = {"GET"}


class _Api:
    def __init__(
        self,
        results: ResultWaiters,
        token: str,
        lifecycle: Lifecycle,
        hooks: Sequence[Hook],
        limit: int,
    ) -> None:
        self._admin = Admin(token)
        self._results = results
        self._lifecycle = lifecycle
        self._hooks = tuple(hooks)
        self._limit = limit
        self._waiting = 0

    async def prediction(self, request: Request) -> Response:
        """200 with the result of one task; 204 where there is none yet."""
        self._admin.admit(request)
        wait = asked(request, _OF_ONE).get("wait", 0)
        task_id: str = request.path_params["id"]
        if len(task_id) > MAX_ID or not task_id.isprintable():
            raise HTTPException(400, f"id: expected a task id of at most {MAX_ID} characters")
        event = await self._ask(request, wait, lambda: self._results.result(task_id, wait))
        if event is None:
            return Response(status_code=204, headers=_NO_STORE)
        return _json(_shown(event))

    async def news(self, request: Request) -> Response:
        """200 with the next results in order of arrival, and the cursor to go on with."""
        self._admin.admit(request)
        values = asked(request, _OF_ALL)
        after = int(values["after"]) if "after" in values else None
        wait, limit = values.get("wait", 0), int(values.get("limit", LIMIT))
        ask = self._ask(request, wait, lambda: self._results.after(after, wait, limit))
        cursor, events = await ask
        return _json({"cursor": cursor, "predictions": [_shown(event) for event in events]})

    async def _ask(self, request: Request, wait: float, ask: Callable[[], Awaitable[T]]) -> T:
        if wait and self._waiting >= self._limit:
            headers = {"retry-after": f"{RETRY_AFTER}"}
            raise HTTPException(503, "Too many requests wait for results already", headers)
        self._waiting += wait > 0
        try:
            await self._lifecycle.ensure()
            return await (_unless_left(request, ask()) if wait else ask())
        except StoreError as error:
            for hook in self._hooks:
                hook(TelemetryEvent("store.failed", error=describe(error)))
            seconds = error.retry_after if isinstance(error, StoreUnavailable) else RETRY_AFTER
            title = "The results cannot be read now; the receiver's log says why"
            raise HTTPException(503, title, {"retry-after": f"{seconds}"}) from None
        finally:
            self._waiting -= wait > 0


async def _unless_left(request: Request, asked: Awaitable[T]) -> T:
    """What was asked for, unless the client leaves before."""
    asking = asyncio.ensure_future(asked)
    leaving = asyncio.ensure_future(_left(request.receive))
    try:
        await asyncio.wait((asking, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not asking.done():
            request.scope[LOG_FIELDS_KEY]["result"] = "disconnected"
            raise HTTPException(499, "The client has left")
        return asking.result()
    finally:
        asking.cancel()
        leaving.cancel()
        await asyncio.gather(asking, leaving, return_exceptions=True)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _shown(event: Event) -> dict[str, Any]:
    return {
        "id": event.subject,
        "status": event.type.removeprefix("prediction."),
        "event_id": event.id,
        "model": event.model,
        "context": event.context,
        "received_at": event.received_at,
        "prediction": event.payload,
    }


def _json(value: object) -> Response:
    return Response(json.dumps(value), media_type="application/json", headers=_NO_STORE)


DEADLINE = 20.0
"""Seconds where nothing else is asked for: less than any platform gives a request."""

DRAIN_LIMIT = 1000
"""Dispatches where nothing else is asked for."""

Drain = Callable[[int, float], Awaitable[Mapping[str, int]]]
"""Does what is due: dispatches at most, seconds at most; tells in numbers what it came to."""

_VALUES: Mapping[str, Value] = MappingProxyType(
    {
        "deadline": Value(
            float, re.compile(r"[0-9]{1,3}(\.[0-9]{1,3})?"), 0.001, 600, "seconds up to 600"
        ),
        "limit": Value(int, WHOLE, 1, 100_000, "a whole number from 1 to 100000"),
    }
)


def drain_routes(
    drain: Drain,
    token: str,
    lifecycle: Lifecycle,
    *,
    follow: Callable[[], Awaitable[object]] | None = None,
    hooks: Sequence[Hook] = (),
) -> list[BaseRoute]:
    """The route of `/api/drain`, for `create_app`.

    Args:
        drain: does what is due.
        token: the admin token.
        lifecycle: opens the store at the first need.
        follow: as `Ingest`.
        hooks: are told where the store does not answer.
    """
    admin = Admin(token)

    async def endpoint(request: Request) -> Response:
        admin.admit(request)
        values = asked(request, _VALUES)
        limit, deadline = int(values.get("limit", DRAIN_LIMIT)), values.get("deadline", DEADLINE)
        try:
            await lifecycle.ensure()
            done = await drain(limit, deadline)
        except StoreError as error:
            for hook in hooks:
                hook(TelemetryEvent("store.failed", error=describe(error)))
            title = "The store does not answer now; the receiver's log says why"
            raise HTTPException(503, title, {"retry-after": f"{RETRY_AFTER}"}) from None
        if follow is not None and not lifecycle.lasts:
            await follow()
        headers = {"cache-control": "no-store"}
        return Response(json.dumps(done), media_type="application/json", headers=headers)

    route = Route("/api/drain", endpoint, methods=["GET", "POST"])
    # Who asks with HEAD wants nothing done.
    route.methods = {"GET", "POST"}
    return [route]

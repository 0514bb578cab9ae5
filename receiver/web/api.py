"""The `/api` endpoints: results by long poll, and one round of work for a schedule.

- `GET /api/predictions/{id}`: the result of one task; 204 while there is none.
- `GET /api/predictions`: results in order of arrival, after a cursor.
- `POST /api/drain`: run what is due. GET does the same, because Vercel's schedule sends nothing
  else (https://vercel.com/docs/cron-jobs).

All of them need the admin token. A purged event is still a result: its status is known, its
prediction and context are null.
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
from starlette.routing import Route
from starlette.types import Receive

from receiver.errors import StoreError, StoreUnavailable
from receiver.event import Event
from receiver.handlers.retry import describe
from receiver.results.long_poll import ResultWaiters
from receiver.sources.base import MAX_ID_LENGTH
from receiver.telemetry import Hook, TelemetryEvent
from receiver.web.lifecycle import Lifecycle
from receiver.web.middleware import LOG_FIELDS_KEY

T = TypeVar("T")

MAX_LONG_POLLS = 1000
"""Requests that may wait at the same time; each holds a connection."""

PAGE_SIZE = 100
"""Predictions in one response: the default and the maximum."""

DRAIN_DEADLINE_S = 20.0
"""Default deadline of a drain: shorter than any platform's limit for a request."""

DRAIN_LIMIT = 1000
"""Default number of dispatches of one drain."""

RETRY_AFTER_S = 5
"""Retry-After of a 503 whose error does not name a time."""

Drain = Callable[[int, float], Awaitable[Mapping[str, int]]]
"""Runs what is due, given the most dispatches and the deadline in seconds; returns counts."""


class QueryParameter(NamedTuple):
    """Syntax and range of one number in a query."""

    read: Callable[[str], float]
    pattern: re.Pattern[str]
    minimum: float
    maximum: float
    expected: str


# At most 18 digits: a number that every database can hold.
_INTEGER = re.compile(r"[0-9]{1,18}")
_WAIT = QueryParameter(float, re.compile(r"[0-9]{1,2}(\.[0-9]{1,3})?"), 0, 60, "seconds, 0 to 60")
_PREDICTION_QUERY: Mapping[str, QueryParameter] = MappingProxyType({"wait": _WAIT})
_PREDICTIONS_QUERY: Mapping[str, QueryParameter] = MappingProxyType(
    {
        "after": QueryParameter(int, _INTEGER, 0, 10**18, "the cursor of the previous response"),
        "wait": _WAIT,
        "limit": QueryParameter(
            int, _INTEGER, 1, PAGE_SIZE, f"a whole number from 1 to {PAGE_SIZE}"
        ),
    }
)
_DRAIN_QUERY: Mapping[str, QueryParameter] = MappingProxyType(
    {
        "deadline": QueryParameter(
            float, re.compile(r"[0-9]{1,3}(\.[0-9]{1,3})?"), 0.001, 600, "seconds, up to 600"
        ),
        "limit": QueryParameter(int, _INTEGER, 1, 100_000, "a whole number from 1 to 100000"),
    }
)


class AdminAuth:
    """Bearer authentication with the admin token.

    Args:
        token: the expected token.
    """

    def __init__(self, token: str) -> None:
        if not token:
            raise ValueError("token: expected text; an empty token would admit everybody")
        self._token = token.encode()

    def check(self, request: Request) -> None:
        """Raise a 401 unless the request carries the token."""
        values = [value for name, value in request.scope["headers"] if name == b"authorization"]
        scheme, _, token = values[0].partition(b" ") if len(values) == 1 else (b"", b"", b"")
        if not (scheme.lower() == b"bearer" and compare_digest(token.strip(), self._token)):
            title = "Expected the header Authorization: Bearer, with the receiver's admin token"
            raise HTTPException(401, title, {"www-authenticate": "Bearer"})


def read_query(request: Request, parameters: Mapping[str, QueryParameter]) -> Mapping[str, float]:
    """Parse a query; every parameter is optional, and anything wrong raises a 400."""
    found: dict[str, float] = {}
    for name, text in request.query_params.multi_items():
        # Ignoring a misspelt `wait` would turn a long poll into a busy loop.
        if name not in parameters:
            raise HTTPException(400, f"Query: expected only {', '.join(parameters)}")
        parameter = parameters[name]
        number = parameter.read(text) if parameter.pattern.fullmatch(text) else -1
        if name in found or not parameter.minimum <= number <= parameter.maximum:
            raise HTTPException(400, f"{name}: expected {parameter.expected}, once")
        found[name] = number
    return found


def result_routes(
    results: ResultWaiters,
    token: str,
    lifecycle: Lifecycle,
    *,
    hooks: Sequence[Hook] = (),
    max_waiting: int = MAX_LONG_POLLS,
) -> list[Route]:
    """The routes of `/api/predictions`.

    Args:
        results: reads results and waits for them.
        token: the admin token.
        lifecycle: opens the store on the first request.
        hooks: called when the store fails.
        max_waiting: requests that may wait at the same time; further ones get a 503.
    """
    endpoints = _Results(results, AdminAuth(token), lifecycle, hooks, max_waiting)
    # GET alone: a HEAD would wait as long, for nothing.
    return [
        _route("/api/predictions", endpoints.list, "GET"),
        _route("/api/predictions/{id}", endpoints.get, "GET"),
    ]


def drain_routes(
    drain: Drain,
    token: str,
    lifecycle: Lifecycle,
    *,
    flush_ledger: Callable[[], Awaitable[object]] | None = None,
    hooks: Sequence[Hook] = (),
) -> list[Route]:
    """The route of `/api/drain`.

    Args:
        drain: runs what is due.
        token: the admin token.
        lifecycle: opens the store on the first request.
        flush_ledger: as for `Ingest`.
        hooks: called when the store fails.
    """
    auth = AdminAuth(token)

    async def endpoint(request: Request) -> Response:
        auth.check(request)
        query = read_query(request, _DRAIN_QUERY)
        limit = int(query.get("limit", DRAIN_LIMIT))
        deadline = query.get("deadline", DRAIN_DEADLINE_S)
        try:
            await lifecycle.ensure()
            counts = await drain(limit, deadline)
        except StoreError as error:
            title = "The store does not answer now; the receiver's log says why"
            raise _unavailable(error, title, hooks) from None
        if flush_ledger is not None and not lifecycle.keeps_running:
            await flush_ledger()
        return _json(counts)

    # No HEAD: a client that sends one wants nothing done.
    return [_route("/api/drain", endpoint, "GET", "POST")]


class _Results:
    """The endpoints of `/api/predictions`."""

    def __init__(
        self,
        results: ResultWaiters,
        auth: AdminAuth,
        lifecycle: Lifecycle,
        hooks: Sequence[Hook],
        max_waiting: int,
    ) -> None:
        self._auth = auth
        self._results = results
        self._lifecycle = lifecycle
        self._hooks = tuple(hooks)
        self._max_waiting = max_waiting
        self._waiting = 0

    async def get(self, request: Request) -> Response:
        """200 with the result of one task; 204 while there is none."""
        self._auth.check(request)
        wait = read_query(request, _PREDICTION_QUERY).get("wait", 0)
        task_id: str = request.path_params["id"]
        if len(task_id) > MAX_ID_LENGTH or not task_id.isprintable():
            raise HTTPException(
                400, f"id: expected a task id of at most {MAX_ID_LENGTH} characters"
            )
        event = await self._wait(request, wait, lambda: self._results.result(task_id, wait))
        if event is None:
            return Response(status_code=204, headers=_NO_STORE)
        return _json(_shown(event))

    async def list(self, request: Request) -> Response:
        """200 with the next results in order of arrival, and the cursor for the next request."""
        self._auth.check(request)
        query = read_query(request, _PREDICTIONS_QUERY)
        after = int(query["after"]) if "after" in query else None
        wait, limit = query.get("wait", 0), int(query.get("limit", PAGE_SIZE))
        cursor, events = await self._wait(
            request, wait, lambda: self._results.after(after, wait, limit)
        )
        return _json({"cursor": cursor, "predictions": [_shown(event) for event in events]})

    async def _wait(self, request: Request, wait: float, read: Callable[[], Awaitable[T]]) -> T:
        if wait and self._waiting >= self._max_waiting:
            headers = {"retry-after": f"{RETRY_AFTER_S}"}
            raise HTTPException(503, "Too many requests wait for results already", headers)
        self._waiting += wait > 0
        try:
            await self._lifecycle.ensure()
            return await (_unless_disconnected(request, read()) if wait else read())
        except StoreError as error:
            title = "The results cannot be read now; the receiver's log says why"
            raise _unavailable(error, title, self._hooks) from None
        finally:
            self._waiting -= wait > 0


async def _unless_disconnected(request: Request, read: Awaitable[T]) -> T:
    """Await `read`, but end early when the client closes the connection."""
    reading = asyncio.ensure_future(read)
    disconnected = asyncio.ensure_future(_disconnected(request.receive))
    try:
        await asyncio.wait((reading, disconnected), return_when=asyncio.FIRST_COMPLETED)
        if not reading.done():
            request.scope[LOG_FIELDS_KEY]["result"] = "disconnected"
            raise HTTPException(499, "The client closed the connection")
        return reading.result()
    finally:
        reading.cancel()
        disconnected.cancel()
        await asyncio.gather(reading, disconnected, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _route(path: str, endpoint: Callable[[Request], Awaitable[Response]], *methods: str) -> Route:
    """A route of exactly these methods: starlette adds HEAD to every GET."""
    route = Route(path, endpoint, methods=methods)
    route.methods = set(methods)
    return route


def _unavailable(error: StoreError, title: str, hooks: Sequence[Hook]) -> HTTPException:
    for hook in hooks:
        hook(TelemetryEvent("store.failed", error=describe(error)))
    seconds = error.retry_after if isinstance(error, StoreUnavailable) else RETRY_AFTER_S
    return HTTPException(503, title, {"retry-after": f"{seconds}"})


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


_NO_STORE = MappingProxyType({"cache-control": "no-store"})


def _json(value: object) -> Response:
    return Response(json.dumps(value), media_type="application/json", headers=_NO_STORE)

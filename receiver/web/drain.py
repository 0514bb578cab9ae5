"""`/api/drain`: a schedule has done what is due, where no process of ours goes on by itself.

POST; and GET too, because one platform's schedule knows no other method
(https://vercel.com/docs/cron-jobs). It needs the admin token.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from receiver.errors import StoreError
from receiver.handlers.retry import describe
from receiver.telemetry import Details, Hook
from receiver.web.admin import Admin
from receiver.web.api import RETRY_AFTER
from receiver.web.lifecycle import Lifecycle
from receiver.web.query import WHOLE, Value, asked

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
                hook(Details("store.failed", error=describe(error)))
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

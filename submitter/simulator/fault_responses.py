"""Ends of connections that HTTP knows nothing of: closed without an answer, and reset.

Answers calls as on a bad day: lost, refused, broken, or late.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from submitter.prediction import JSON
from submitter.simulator.faults import Call, Fault, Strike
from submitter.simulator.state import World

STATE = "wavehook.connection"
"""Where a request finds its connection, in its state."""


def losable(base: type[asyncio.Protocol]) -> type[asyncio.Protocol]:
    """One of uvicorn's HTTP protocols, on whose requests `Lost` may be answered.

    Args:
        base: uvicorn's protocol over h11 or httptools.
    """

    class Losable(base):  # type: ignore[valid-type, misc]
        # uvicorn copies the state into the scope of every request.
        def __init__(self, *, app_state: dict[str, Any], **more: Any) -> None:
            super().__init__(app_state={**app_state, STATE: self}, **more)

        def connection_made(self, transport: asyncio.Transport) -> None:
            self._wire = transport
            super().connection_made(transport)

        def lose(self, *, reset: bool) -> None:
            if not reset or self._wire.is_closing():
                self._wire.close()
                return
            # A socket that lingers for no time at all says goodbye with RST.
            now = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
            wire = self._wire.get_extra_info("socket")
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, now)
            self._wire.abort()

    return Losable


class Lost(Response):
    """No answer: the connection ends instead. Works under `serving`.

    Args:
        reset: end it with RST, not in order.
    """

    def __init__(self, *, reset: bool = False) -> None:
        super().__init__()
        self._reset = reset

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """End the connection, and wait until it has ended: uvicorn would answer 500 before."""
        scope["state"][STATE].lose(reset=self._reset)
        while (await receive())["type"] != "http.disconnect":
            pass


SLOW = 20.0
"""Seconds of life by which `slow-answer` is late."""

PATIENCE = 10.0
"""Seconds of life that Retry-After asks for; the header holds whole seconds by the clock."""

Endpoint = Callable[[Request, Call], Awaitable[Response]]


async def answer(world: World, call: Call, endpoint: Endpoint, request: Request) -> Response:
    """Answer a call, or do to it what the plan wants.

    Args:
        world: with the plan.
        call: which it is.
        endpoint: answers it as on a good day.
        request: the call itself.
    """
    await request.body()  # A connection that ends with bytes unread is reset, whoever closes it.
    strike = world.plan.strike(call)
    if strike is None:
        response = await endpoint(request, call)
    elif strike.late:
        response = await endpoint(request, call)
        # What was refused has created nothing that the fault could hide.
        if response.status_code == 200:
            response = _spoiled(world, strike)
    else:
        response = _spoiled(world, strike)
    if world.plan.hits(Fault.SLOW_ANSWER, *call):
        await world.pace.sleep(SLOW)
    return response


def _spoiled(world: World, strike: Strike) -> Response:
    if strike.fault in (Fault.LOST_REQUEST, Fault.LOST_ANSWER, Fault.RESET):
        return Lost(reset=strike.fault is Fault.RESET)
    if strike.fault is Fault.ERROR_502:
        return HTMLResponse("<html><body><h1>502 Bad Gateway</h1></body></html>", 502)
    if strike.fault is Fault.ERROR_500:
        return error(500, "internal_error", "Internal server error", strike.turn)
    response = error(429, "rate_limit_exceeded", "Too many requests", strike.turn)
    if strike.turn % 2 == 0:
        wait = round(PATIENCE / world.pace.timeline.speed)
        response.headers["Retry-After"] = str(wait)
    return response


def error(status: int, word: str, message: str, turn: int) -> Response:
    """An error in one of the shapes that the API's errors have.

    Args:
        status: of HTTP.
        word: a code as text.
        message: for a person.
        turn: which shape, by turns.
    """
    shapes: tuple[JSON, ...] = (
        {"code": status, "message": message},
        {"message": message, "error_code": word},
        {"error": message},
        {"detail": message},
    )
    place = turn % (len(shapes) + 1)
    if place == len(shapes):
        return PlainTextResponse(message, status)
    return JSONResponse(shapes[place], status)

"""Answers calls as on a bad day: lost, refused, broken, or late."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response

from submitter.prediction import JSON
from submitter.simulator.calls import Call
from submitter.simulator.connection import Lost
from submitter.simulator.faults import Fault
from submitter.simulator.plan import Strike
from submitter.simulator.world import World

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

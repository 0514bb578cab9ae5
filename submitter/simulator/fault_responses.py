"""Responses to API calls, with the injected faults: lost, refused, broken or late."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response

from submitter.prediction import JSON
from submitter.simulator.faults import Call, FaultKind, InjectedFault
from submitter.simulator.server import NoResponse
from submitter.simulator.state import SimState

SLOW_RESPONSE_S = 20.0
"""Simulated seconds by which `slow-answer` is late."""

RETRY_AFTER_S = 10.0
"""Simulated seconds of Retry-After; the header has them in whole seconds of the wall clock."""

Endpoint = Callable[[Request, Call], Awaitable[Response]]


async def respond(state: SimState, call: Call, endpoint: Endpoint, request: Request) -> Response:
    """Respond to a call, with the fault that is injected.

    Args:
        state: the simulator.
        call: kind and number of the call.
        endpoint: responds without a fault.
        request: the request.
    """
    await request.body()  # A connection that is closed with unread bytes is reset by the kernel.
    injected = state.injector.inject(call)
    if injected is None:
        response = await endpoint(request, call)
    elif injected.takes_effect:
        response = await endpoint(request, call)
        # A refused call had no effect that a fault could hide.
        if response.status_code == 200:
            response = _fault_response(state, injected)
    else:
        response = _fault_response(state, injected)
    if state.injector.hits(FaultKind.SLOW_ANSWER, *call):
        await state.sim_clock.sleep(SLOW_RESPONSE_S)
    return response


def _fault_response(state: SimState, injected: InjectedFault) -> Response:
    if injected.fault in (FaultKind.LOST_REQUEST, FaultKind.LOST_ANSWER, FaultKind.RESET):
        return NoResponse(reset=injected.fault is FaultKind.RESET)
    if injected.fault is FaultKind.ERROR_502:
        return HTMLResponse("<html><body><h1>502 Bad Gateway</h1></body></html>", 502)
    if injected.fault is FaultKind.ERROR_500:
        return _error(500, "internal_error", "Internal server error", injected.turn)
    response = _error(429, "rate_limit_exceeded", "Too many requests", injected.turn)
    if injected.turn % 2 == 0:
        seconds = round(RETRY_AFTER_S / state.sim_clock.timeline.speed)
        response.headers["Retry-After"] = str(seconds)
    return response


def _error(status: int, error_code: str, message: str, turn: int) -> Response:
    """An error response in one of the API's five shapes, chosen by `turn`."""
    shapes: tuple[JSON, ...] = (
        {"code": status, "message": message},
        {"message": message, "error_code": error_code},
        {"error": message},
        {"detail": message},
    )
    index = turn % (len(shapes) + 1)
    if index == len(shapes):
        return PlainTextResponse(message, status)
    return JSONResponse(shapes[index], status)

"""The simulator's routes: the vendor's API, its files, and a look behind the scenes."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from submitter.simulator import fault_responses, media
from submitter.simulator.answers import API, refusal
from submitter.simulator.checks import BadRequest
from submitter.simulator.fault_responses import Endpoint
from submitter.simulator.faults import Kind
from submitter.simulator.routes import Admin, Files, Reads, Submits
from submitter.simulator.state import World


def create_app(world: World) -> Starlette:
    """The simulator as an ASGI app."""
    submits, reads, files, admin = Submits(world), Reads(world), Files(world), Admin(world)
    private = (
        ("/predictions", "POST", Kind.HISTORY, reads.history),
        ("/predictions/delete", "POST", Kind.DELETE, reads.delete),
        ("/predictions/{id}/result", "GET", Kind.RESULT, reads.result),
        ("/predictions/{id}", "GET", Kind.RESULT, reads.result),
        ("/models", "GET", Kind.MODELS, reads.models),
        ("/model/price", "POST", Kind.PRICE, submits.price),
        ("/balance", "GET", Kind.BALANCE, reads.balance),
        ("/media/uploads", "POST", Kind.UPLOAD, files.announce),
        ("/webhook/secret", "GET", Kind.SECRET, reads.secret),
        ("/{model:path}", "POST", Kind.SUBMIT, submits.submit),
    )
    public = (
        (media.FIRST_FRAME, "GET", files.first_frame),
        ("/outputs/{id}.mp4", "GET", files.output),
        ("/uploads/{name}", "PUT", files.put),
        ("/uploads/{name}", "GET", files.upload),
        ("/simulator/bill", "GET", admin.bill),
        ("/simulator/webhooks", "GET", admin.webhooks),
        ("/simulator/calls", "GET", admin.calls),
        ("/simulator/faults", "POST", admin.faults),
        ("/simulator/forward", "POST", admin.forward),
    )
    return Starlette(
        routes=[
            *(
                Route(API + path, _guarded(world, kind, do), methods=[verb])
                for path, verb, kind, do in private
            ),
            *(Route(path, do, methods=[verb]) for path, verb, do in public),
        ],
        exception_handlers={404: _not_found, BadRequest: _bad_request},
    )


def _guarded(
    world: World, kind: Kind, endpoint: Endpoint
) -> Callable[[Request], Awaitable[Response]]:
    """Count a call, and let it through only with a bearer key."""

    async def guard(request: Request) -> Response:
        call = world.calls.received(kind)
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not _knows(world.api_key, key.strip()):
            return refusal(401, "Unauthorized: send Authorization: Bearer <API key>")
        return await fault_responses.answer(world, call, endpoint, request)

    return guard


def _knows(wanted: str | None, key: str) -> bool:
    return bool(key) and (wanted is None or hmac.compare_digest(key.encode(), wanted.encode()))


async def _not_found(request: Request, error: Exception) -> Response:  # noqa: ARG001
    return refusal(404, "Not found")


async def _bad_request(request: Request, error: Exception) -> Response:  # noqa: ARG001
    return refusal(400, str(error))

"""HTTP API of the simulator: the vendor's endpoints, its media files, and control endpoints.

The control endpoints need no key:

- `GET /simulator/bill`: submitted tasks, `{"submits", "cost", "tasks": [...]}`; each task with its
  id, model, cost (USD), time (Unix seconds), and `webhook`, true if one was requested.
- `GET /simulator/webhooks`: every delivery attempt of a webhook, in order.
- `GET /simulator/calls`: number of API calls by kind.
- `POST /simulator/faults {"faults": "drop=0.2"}`: replace the faults; the seed stays.
- `POST /simulator/forward {"seconds": 3600}`: move simulated time forward; tasks that end by then
  send their webhooks at once, and tasks and uploads that are too old by then are deleted.
"""

from __future__ import annotations

import contextlib
import hmac
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from itertools import islice

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    Response,
)
from starlette.routing import Route

from submitter import catalogue
from submitter.prediction import JSON, Status
from submitter.simulator import media, response_bodies
from submitter.simulator.clock import SimClock
from submitter.simulator.faults import (
    Call,
    CallCounter,
    CallKind,
    FaultInjector,
    FaultKind,
    Faults,
    FaultsError,
    InjectedFault,
)
from submitter.simulator.request_checks import (
    BadRequest,
    check_input,
    check_webhook,
    integer,
    read_object,
    text,
    timestamp,
)
from submitter.simulator.response_bodies import API_PATH, error_response, success
from submitter.simulator.server import NoResponse
from submitter.simulator.tasks import VIDEO_PRICE_USD, Task, TaskStore, price, video_seconds
from submitter.simulator.uploads import MAX_UPLOAD_BYTES, UploadRefused, UploadStore
from submitter.simulator.webhook_sender import WebhookSender

START_BALANCE_USD = 100.0
"""Balance at the start; submits are accepted below zero, too."""

MAX_FORWARD_S = 10 * 365 * 24 * 3600
"""Largest step of simulated time, in seconds."""

_CONTENT_TYPE = re.compile(r"[a-z0-9.+-]{1,64}/[a-z0-9.+-]{1,64}")


SLOW_RESPONSE_S = 20.0
"""Simulated seconds by which `slow-answer` is late."""

RETRY_AFTER_S = 10.0
"""Simulated seconds of Retry-After; the header has them in whole seconds of the wall clock."""

Endpoint = Callable[[Request, Call], Awaitable[Response]]


@dataclass(slots=True)
class SimState:
    """Parts of one simulator.

    Attributes:
        tasks: submitted tasks.
        sender: delivers their webhooks.
        injector: decides on faults.
        sim_clock: sleeps in simulated time.
        clock: Unix seconds.
        secret: signs the webhooks.
        api_key: the only accepted key; None accepts any.
        url: base URL of the simulator.
        calls: counts API calls.
        uploads: uploaded files.
    """

    tasks: TaskStore
    sender: WebhookSender
    injector: FaultInjector
    sim_clock: SimClock
    clock: Callable[[], float]
    secret: str = field(repr=False)
    api_key: str | None = field(default=None, repr=False)
    url: str = ""
    calls: CallCounter = field(default_factory=CallCounter)
    uploads: UploadStore = field(default_factory=UploadStore)


def create_app(state: SimState) -> Starlette:
    """Build the simulator's ASGI app."""
    submits, reads = SubmitEndpoints(state), ReadEndpoints(state)
    files, control = FileEndpoints(state), ControlEndpoints(state)
    with_key = (
        ("/predictions", "POST", CallKind.HISTORY, reads.history),
        ("/predictions/delete", "POST", CallKind.DELETE, reads.delete),
        ("/predictions/{id}/result", "GET", CallKind.RESULT, reads.result),
        ("/predictions/{id}", "GET", CallKind.RESULT, reads.result),
        ("/models", "GET", CallKind.MODELS, reads.models),
        ("/model/price", "POST", CallKind.PRICE, submits.price),
        ("/balance", "GET", CallKind.BALANCE, reads.balance),
        ("/media/uploads", "POST", CallKind.UPLOAD, files.announce),
        ("/webhook/secret", "GET", CallKind.SECRET, reads.secret),
        ("/{model:path}", "POST", CallKind.SUBMIT, submits.submit),
    )
    without_key = (
        (media.FIRST_FRAME_PATH, "GET", files.first_frame),
        ("/outputs/{id}.mp4", "GET", files.output),
        ("/uploads/{name}", "PUT", files.put),
        ("/uploads/{name}", "GET", files.upload),
        ("/simulator/bill", "GET", control.bill),
        ("/simulator/webhooks", "GET", control.webhooks),
        ("/simulator/calls", "GET", control.calls),
        ("/simulator/faults", "POST", control.faults),
        ("/simulator/forward", "POST", control.forward),
    )
    return Starlette(
        routes=[
            *(
                Route(API_PATH + path, _guarded(state, kind, endpoint), methods=[method])
                for path, method, kind, endpoint in with_key
            ),
            *(Route(path, endpoint, methods=[method]) for path, method, endpoint in without_key),
        ],
        exception_handlers={404: _not_found, BadRequest: _bad_request},
    )


def _guarded(
    state: SimState, kind: CallKind, endpoint: Endpoint
) -> Callable[[Request], Awaitable[Response]]:
    """Count each call of an endpoint, and require a bearer key."""

    async def guard(request: Request) -> Response:
        call = state.calls.add(kind)
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not _is_accepted(key.strip(), state.api_key):
            return error_response(401, "Unauthorized: send Authorization: Bearer <API key>")
        return await respond(state, call, endpoint, request)

    return guard


def _is_accepted(key: str, only: str | None) -> bool:
    return bool(key) and (only is None or hmac.compare_digest(key.encode(), only.encode()))


async def _not_found(request: Request, error: Exception) -> Response:  # noqa: ARG001
    return error_response(404, "Not found")


async def _bad_request(request: Request, error: Exception) -> Response:  # noqa: ARG001
    return error_response(400, str(error))


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
        return _injected_error(500, "internal_error", "Internal server error", injected.turn)
    response = _injected_error(429, "rate_limit_exceeded", "Too many requests", injected.turn)
    if injected.turn % 2 == 0:
        seconds = round(RETRY_AFTER_S / state.sim_clock.timeline.speed)
        response.headers["Retry-After"] = str(seconds)
    return response


def _injected_error(status: int, error_code: str, message: str, turn: int) -> Response:
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


class SubmitEndpoints:
    """Endpoints that create tasks, or say what one would cost."""

    def __init__(self, state: SimState) -> None:
        self._state = state

    async def submit(self, request: Request, call: Call) -> Response:
        """Create a task, and bill it."""
        state, model = self._state, request.path_params["model"]
        if model not in catalogue.builtin_models():
            return error_response(404, f"Model not found: {model}")
        input = read_object(await request.body())
        webhook = request.query_params.get("webhook")
        if webhook is not None:
            if input.get("enable_base64_output"):
                return JSONResponse(
                    {"error": "webhook cannot be used with enable_base64_output"}, status_code=400
                )
            check_webhook(webhook)
        check_input(input, model)
        number = len(state.tasks.submitted)
        early = webhook is not None and state.injector.hits(FaultKind.EARLY_WEBHOOK, number)
        now = state.clock()
        task = state.tasks.submit(
            model, input, webhook=webhook, cost=price(input), now=now, ends_now=early
        )
        first = state.sender.schedule(task, webhook) if webhook is not None else None
        # The response shows the task as it started, even if it has ended already.
        body = response_bodies.prediction(task, now - 1.0, state.url)
        if early and first is not None:
            await first.wait()
        return success(
            response_bodies.with_faults(body, lambda fault: state.injector.hits(fault, *call))
        )

    async def price(self, request: Request, call: Call) -> Response:  # noqa: ARG002
        """The price of a task."""
        query = read_object(await request.body())
        model, inputs = text(query, "model_id"), query.get("inputs")
        if not isinstance(inputs, dict):
            raise BadRequest("inputs: must be an object")
        if model not in catalogue.builtin_models():
            return error_response(404, f"Model not found: {model}")
        cost = price(inputs)
        return success({"price": cost, "discounted_price": cost})


class ReadEndpoints:
    """Endpoints about tasks and the account."""

    def __init__(self, state: SimState) -> None:
        self._state = state

    async def result(self, request: Request, call: Call) -> Response:
        """State and outputs of one task."""
        state, now = self._state, self._state.clock()
        task = state.tasks.find(request.path_params["id"], now)
        if task is None:
            return error_response(404, "Prediction not found; predictions are kept for 7 days")
        body = response_bodies.prediction(task, now, state.url)
        return success(
            response_bodies.with_faults(body, lambda fault: state.injector.hits(fault, *call))
        )

    async def history(self, request: Request, call: Call) -> Response:
        """One page of tasks, newest first."""
        state, query, now = self._state, read_object(await request.body()), self._state.clock()
        page, size = integer(query, "page", 10**6), integer(query, "page_size", 100)
        model, status = query.get("model") or None, query.get("status") or None
        tasks = state.tasks.history(
            now, after=timestamp(query, "created_after"), before=timestamp(query, "created_before")
        )
        found = (
            task
            for task in tasks
            if model in (None, task.model)
            and status in (None, task.status(now))
            and not state.injector.hits(FaultKind.MISSING_HISTORY, *call, task.number)
        )
        items = islice(found, (page - 1) * size, page * size)
        return success({"page": page, "items": [self._item(task, call, now) for task in items]})

    def _item(self, task: Task, call: Call, now: float) -> JSON:
        injector, url = self._state.injector, self._state.url
        if (call.number + task.number) % 2 and injector.hits(
            FaultKind.MISSING_FIELDS, *call, task.number
        ):
            return response_bodies.prediction(task, now, url)
        body = response_bodies.history_item(task, now, url)
        return response_bodies.with_faults(
            body, lambda fault: injector.hits(fault, *call, task.number)
        )

    async def delete(self, request: Request, call: Call) -> Response:  # noqa: ARG002
        """Delete tasks. A running task goes on, and its webhook is still sent."""
        ids = read_object(await request.body()).get("ids")
        if not (isinstance(ids, list) and ids and all(isinstance(id, str) for id in ids)):
            raise BadRequest("ids: must be an array of task ids")
        self._state.tasks.delete(map(str, ids))
        return success(None)

    async def models(self, request: Request, call: Call) -> Response:  # noqa: ARG002
        """The catalogue of models."""
        return success(
            [
                response_bodies.model(id, catalogue.builtin(id) or {}, VIDEO_PRICE_USD)
                for id in catalogue.builtin_models()
            ]
        )

    async def balance(self, request: Request, call: Call) -> Response:  # noqa: ARG002
        """Balance of the account."""
        return success({"balance": round(START_BALANCE_USD - self._state.tasks.spent, 6)})

    async def secret(self, request: Request, call: Call) -> Response:  # noqa: ARG002
        """Secret of the webhooks."""
        return success({"secret": self._state.secret})


class FileEndpoints:
    """Uploads and downloads. Only the announcement of an upload needs a key."""

    def __init__(self, state: SimState) -> None:
        self._state = state

    async def first_frame(self, request: Request) -> Response:  # noqa: ARG002
        """A picture that the models accept."""
        return Response(media.png(), media_type="image/png")

    async def output(self, request: Request) -> Response:
        """Output of a completed task."""
        now = self._state.clock()
        task = self._state.tasks.find(request.path_params["id"], now)
        if task is None or task.status(now) != Status.COMPLETED:
            return error_response(404, "No such file; outputs exist from completion on, for 7 days")
        return Response(media.mp4(video_seconds(task.input)), media_type="video/mp4")

    async def announce(self, request: Request, call: Call) -> Response:  # noqa: ARG002
        """Announce an upload."""
        state, query = self._state, read_object(await request.body())
        content_type = query.get("content_type") or "application/octet-stream"
        if not (isinstance(content_type, str) and _CONTENT_TYPE.fullmatch(content_type)):
            raise BadRequest("content_type: must be a type such as image/png")
        filename, size = text(query, "filename"), integer(query, "size", MAX_UPLOAD_BYTES)
        upload = state.uploads.announce(filename, size, content_type, state.clock())
        url = f"{state.url}/uploads/{upload.name}"
        put: dict[str, JSON] = {
            "method": "PUT",
            "url": f"{url}?signature={upload.signature}",
            "headers": dict(upload.headers),
        }
        return success({"upload": put, "download_url": url})

    async def put(self, request: Request) -> Response:
        """Receive an upload; errors have the shape of a storage service."""
        state = self._state
        state.calls.add(CallKind.PUT)
        upload = state.uploads.find(request.path_params["name"], state.clock())
        if upload is None:
            return _storage_error(404, "There is no such upload")
        signature, body = request.query_params.get("signature", ""), request.stream()
        try:
            await state.uploads.put(upload, signature, request.headers, body)
        except UploadRefused as error:
            await _discard(body)
            return _storage_error(error.status, str(error))
        except ClientDisconnect:
            pass  # Nobody reads the response.
        return Response()

    async def upload(self, request: Request) -> Response:
        """Download an upload."""
        upload = self._state.uploads.find(request.path_params["name"], self._state.clock())
        if upload is None or upload.path is None:
            return error_response(404, "No such file; uploads are kept for 7 days")
        return FileResponse(upload.path, media_type=upload.content_type)


async def _discard(body: AsyncIterator[bytes]) -> None:
    """Read the rest: a client that is still sending would not see the response."""
    with contextlib.suppress(ClientDisconnect):
        async for _ in body:
            pass


def _storage_error(status: int, reason: str) -> Response:
    body = f"<Error><Message>{reason}</Message></Error>"
    return Response(body, status, {"Connection": "close"}, "application/xml")


class ControlEndpoints:
    """Endpoints that only a simulator has."""

    def __init__(self, state: SimState) -> None:
        self._state = state

    async def bill(self, request: Request) -> Response:  # noqa: ARG002
        """All submitted tasks."""
        store = self._state.tasks
        tasks: list[JSON] = [
            {
                "id": task.id,
                "model": task.model,
                "cost": task.cost,
                "at": task.created_at,
                "webhook": task.webhook is not None,
            }
            for task in store.submitted.values()
        ]
        return JSONResponse({"submits": len(tasks), "cost": round(store.spent, 6), "tasks": tasks})

    async def webhooks(self, request: Request) -> Response:  # noqa: ARG002
        """All delivery attempts of webhooks."""
        return JSONResponse([attempt.as_json() for attempt in self._state.sender.attempts])

    async def calls(self, request: Request) -> Response:  # noqa: ARG002
        """Number of API calls by kind."""
        return JSONResponse(self._state.calls.counts())

    async def faults(self, request: Request) -> Response:
        """Replace the faults."""
        entries = read_object(await request.body()).get("faults")
        injector = self._state.injector
        if not isinstance(entries, str):
            raise BadRequest("faults: must be a string such as drop=0.2,stale=0.1")
        try:
            injector.faults = Faults.parse(entries, injector.faults.seed)
        except FaultsError as error:
            raise BadRequest(str(error)) from None
        return JSONResponse({"faults": dict(injector.faults.rates), "seed": injector.faults.seed})

    async def forward(self, request: Request) -> Response:
        """Move simulated time forward."""
        seconds = read_object(await request.body()).get("seconds")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            seconds = -1
        if not 0 <= seconds <= MAX_FORWARD_S:
            raise BadRequest(f"seconds: must be a number from 0 to {MAX_FORWARD_S}")
        self._state.sim_clock.forward(seconds)
        return JSONResponse({"seconds": seconds})

"""The simulator's routes: the vendor's API, its output files, and a look behind the scenes."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from submitter import catalogue
from submitter.prediction import JSON, Status
from submitter.simulator import answers, media
from submitter.simulator.answers import API, refusal, success
from submitter.simulator.checks import BadRequest, check_input, check_webhook, read_object, whole
from submitter.simulator.faults import Fault, Faults
from submitter.simulator.pace import Pace
from submitter.simulator.sender import Sender
from submitter.simulator.tasks import Book, Task

BALANCE = 100.0
"""USD at the start; nothing is refused when they are gone."""

PRICE = 0.25
"""USD for 5 seconds of video."""

SLOW = 20.0
"""Seconds of life by which `slow-answer` is late."""


@dataclass(slots=True)
class World:
    """What the routes act on.

    Attributes:
        book: the tasks.
        sender: delivers their webhooks.
        faults: spoils answers.
        pace: of late answers.
        clock: Unix seconds.
        secret: of the webhooks.
        api_key: the one that is accepted; None accepts any.
        url: where the simulator is reached.
    """

    book: Book
    sender: Sender
    faults: Faults
    pace: Pace
    clock: Callable[[], float]
    secret: str = field(repr=False)
    api_key: str | None = field(default=None, repr=False)
    url: str = ""


def create_app(world: World) -> Starlette:
    """The simulator as an ASGI app."""
    routes = _Routes(world)
    private = (
        ("/predictions", "POST", routes.history),
        ("/predictions/{id}/result", "GET", routes.result),
        ("/predictions/{id}", "GET", routes.result),
        ("/models", "GET", routes.models),
        ("/balance", "GET", routes.balance),
        ("/webhook/secret", "GET", routes.secret),
        ("/{model:path}", "POST", routes.submit),
    )
    public = (
        (media.FIRST_FRAME, routes.first_frame),
        ("/outputs/{id}.mp4", routes.output),
        ("/simulator/bill", routes.bill),
        ("/simulator/webhooks", routes.webhooks),
    )
    return Starlette(
        routes=[
            *(Route(API + path, routes.guarded(do), methods=[verb]) for path, verb, do in private),
            *(Route(path, do) for path, do in public),
        ],
        exception_handlers={404: _not_found, BadRequest: _bad_request},
    )


Endpoint = Callable[[Request], Awaitable[Response]]


class _Routes:
    def __init__(self, world: World) -> None:
        self._world = world

    def guarded(self, endpoint: Endpoint) -> Endpoint:
        """Let only requests with a bearer key through."""

        async def guard(request: Request) -> Response:
            scheme, _, key = request.headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not self._knows(key.strip()):
                return refusal(401, "Unauthorized: send Authorization: Bearer <API key>")
            return await endpoint(request)

        return guard

    def _knows(self, key: str) -> bool:
        wanted = self._world.api_key
        return bool(key) and (wanted is None or hmac.compare_digest(key.encode(), wanted.encode()))

    async def submit(self, request: Request) -> Response:
        world, model = self._world, request.path_params["model"]
        schema = catalogue.builtin(model)
        if schema is None:
            return refusal(404, f"Model not found: {model}")
        input = read_object(await request.body())
        webhook = request.query_params.get("webhook")
        if webhook is not None:
            if input.get("enable_base64_output"):
                return JSONResponse(
                    {"error": "webhook cannot be used with enable_base64_output"}, status_code=400
                )
            check_webhook(webhook)
        check_input(input, schema)
        number = len(world.book.tasks)
        early = webhook is not None and world.faults.hits(Fault.EARLY_WEBHOOK, number)
        now = world.clock()
        task = world.book.submit(
            model, input, webhook=webhook, cost=PRICE * _seconds(input) / 5, now=now, at_once=early
        )
        first = world.sender.schedule(task, webhook) if webhook is not None else None
        answer = success({**answers.prediction(task, now, world.url), "status": Status.CREATED})
        if early and first is not None:
            await first.wait()
        if world.faults.hits(Fault.SLOW_ANSWER, number):
            await world.pace.sleep(SLOW)
        return answer

    async def result(self, request: Request) -> Response:
        now = self._world.clock()
        task = self._world.book.find(request.path_params["id"], now)
        if task is None:
            return refusal(404, "Prediction not found; predictions are kept for 7 days")
        return success(answers.prediction(task, now, self._world.url))

    async def history(self, request: Request) -> Response:
        query, now = read_object(await request.body()), self._world.clock()
        page, size = whole(query, "page", 10**6), whole(query, "page_size", 100)
        found = [task for task in self._world.book.history(now) if _wanted(task, query, now)]
        items = found[(page - 1) * size : page * size]
        url = self._world.url
        return success({"page": page, "items": [answers.past(task, now, url) for task in items]})

    async def models(self, request: Request) -> Response:  # noqa: ARG002
        return success(
            [
                answers.model(id, catalogue.builtin(id) or {}, PRICE)
                for id in catalogue.builtin_models()
            ]
        )

    async def balance(self, request: Request) -> Response:  # noqa: ARG002
        spent = sum(task.cost for task in self._world.book.tasks.values())
        return success({"balance": round(BALANCE - spent, 6)})

    async def secret(self, request: Request) -> Response:  # noqa: ARG002
        return success({"secret": self._world.secret})

    async def first_frame(self, request: Request) -> Response:  # noqa: ARG002
        return Response(media.png(), media_type="image/png")

    async def output(self, request: Request) -> Response:
        now = self._world.clock()
        task = self._world.book.find(request.path_params["id"], now)
        if task is None or task.status(now) != Status.COMPLETED:
            return refusal(404, "No such file; outputs exist from completion on, for 7 days")
        return Response(media.mp4(_seconds(task.input)), media_type="video/mp4")

    async def bill(self, request: Request) -> Response:  # noqa: ARG002
        tasks = self._world.book.tasks.values()
        lines: list[JSON] = [
            {"id": task.id, "model": task.model, "cost": task.cost, "at": task.created_at}
            for task in tasks
        ]
        cost = round(sum(task.cost for task in tasks), 6)
        return JSONResponse({"submits": len(tasks), "cost": cost, "tasks": lines})

    async def webhooks(self, request: Request) -> Response:  # noqa: ARG002
        return JSONResponse([attempt.as_json() for attempt in self._world.sender.attempts])


async def _not_found(request: Request, error: Exception) -> Response:  # noqa: ARG001
    return refusal(404, "Not found")


async def _bad_request(request: Request, error: Exception) -> Response:  # noqa: ARG001
    return refusal(400, str(error))


def _seconds(input: Mapping[str, JSON]) -> int:
    """The length of the video that was asked for."""
    seconds = input.get("duration")
    return seconds if isinstance(seconds, int) else 5


def _wanted(task: Task, query: Mapping[str, JSON], now: float) -> bool:
    """Whether a task fits the filters of a history query."""
    after, before = _moment(query, "created_after"), _moment(query, "created_before")
    return (
        query.get("model") in (None, "", task.model)
        and query.get("status") in (None, "", task.status(now))
        and (after is None or task.created_at >= after)
        and (before is None or task.created_at < before)
    )


def _moment(query: Mapping[str, JSON], name: str) -> float | None:
    """Unix seconds of an RFC 3339 time."""
    text = query.get(name)
    if text in (None, ""):
        return None
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        raise BadRequest(f"{name}: must be a time such as 2026-03-01T09:12:48Z") from None

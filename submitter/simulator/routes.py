"""What costs money: a new task, and what it would cost.

What the API answers about tasks and the account, and the call that makes it forget tasks.

Files over HTTP: results, a first frame, and uploads.

A look behind the scenes, and a hand in them: for tests, demonstrations and the curious.

None of these asks for a key:

- `GET /simulator/bill`: what was submitted, `{"submits", "cost", "tasks": [...]}`; each task with
  its id, model, cost (USD), time (Unix seconds), and whether a webhook was asked for.
- `GET /simulator/webhooks`: every attempt at a webhook, in order.
- `GET /simulator/calls`: how many calls came, by kind.
- `POST /simulator/faults {"faults": "drop=0.2"}`: replace what goes wrong; the seed stays.
- `POST /simulator/forward {"seconds": 3600}`: let life jump ahead; what ends by it sends its
  webhook at once, and what is too old by it is gone.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator
from itertools import islice

from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response

from submitter import catalogue
from submitter.prediction import JSON, Status
from submitter.simulator import answers, media
from submitter.simulator.answers import refusal, success
from submitter.simulator.checks import (
    BadRequest,
    check_input,
    check_webhook,
    moment,
    read_object,
    text,
    whole,
)
from submitter.simulator.faults import Call, Fault, Faults, FaultsError, Kind
from submitter.simulator.state import BALANCE, PRICE, World, price, seconds
from submitter.simulator.tasks import Task
from submitter.simulator.uploads import MOST, Refused


class Submits:
    """Takes tasks on."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def submit(self, request: Request, call: Call) -> Response:
        """Create a task; it is billed."""
        world, model = self._world, request.path_params["model"]
        if model not in catalogue.builtin_models():
            return refusal(404, f"Model not found: {model}")
        input = read_object(await request.body())
        webhook = request.query_params.get("webhook")
        if webhook is not None:
            if input.get("enable_base64_output"):
                return JSONResponse(
                    {"error": "webhook cannot be used with enable_base64_output"}, status_code=400
                )
            check_webhook(webhook)
        check_input(input, model)
        number = len(world.book.tasks)
        early = webhook is not None and world.plan.hits(Fault.EARLY_WEBHOOK, number)
        now = world.clock()
        task = world.book.submit(
            model, input, webhook=webhook, cost=price(input), now=now, at_once=early
        )
        first = world.sender.schedule(task, webhook) if webhook is not None else None
        # The answer to a submit shows the task as it began, however early it ends.
        body = answers.prediction(task, now - 1.0, world.url)
        if early and first is not None:
            await first.wait()
        return success(answers.spoiled(body, lambda fault: world.plan.hits(fault, *call)))

    async def price(self, request: Request, call: Call) -> Response:  # noqa: ARG002
        """What a task would cost; asking is free."""
        query = read_object(await request.body())
        model, inputs = text(query, "model_id"), query.get("inputs")
        if not isinstance(inputs, dict):
            raise BadRequest("inputs: must be an object")
        if model not in catalogue.builtin_models():
            return refusal(404, f"Model not found: {model}")
        cost = price(inputs)
        return success({"price": cost, "discounted_price": cost})


class Reads:
    """Answers questions."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def result(self, request: Request, call: Call) -> Response:
        """How one task stands."""
        world, now = self._world, self._world.clock()
        task = world.book.find(request.path_params["id"], now)
        if task is None:
            return refusal(404, "Prediction not found; predictions are kept for 7 days")
        body = answers.prediction(task, now, world.url)
        return success(answers.spoiled(body, lambda fault: world.plan.hits(fault, *call)))

    async def history(self, request: Request, call: Call) -> Response:
        """Pages of tasks, newest first."""
        world, query, now = self._world, read_object(await request.body()), self._world.clock()
        page, size = whole(query, "page", 10**6), whole(query, "page_size", 100)
        model, status = query.get("model") or None, query.get("status") or None
        tasks = world.book.history(
            now, after=moment(query, "created_after"), before=moment(query, "created_before")
        )
        found = (
            task
            for task in tasks
            if model in (None, task.model)
            and status in (None, task.status(now))
            and not world.plan.hits(Fault.MISSING_HISTORY, *call, task.number)
        )
        items = islice(found, (page - 1) * size, page * size)
        return success({"page": page, "items": [self._item(task, call, now) for task in items]})

    def _item(self, task: Task, call: Call, now: float) -> JSON:
        plan, url = self._world.plan, self._world.url
        if (call.number + task.number) % 2 and plan.hits(Fault.MISSING_FIELDS, *call, task.number):
            return answers.prediction(task, now, url)
        body = answers.past(task, now, url)
        return answers.spoiled(body, lambda fault: plan.hits(fault, *call, task.number))

    async def delete(self, request: Request, call: Call) -> Response:  # noqa: ARG002
        """Forget tasks for good; one that runs goes on, and its webhook still comes."""
        ids = read_object(await request.body()).get("ids")
        if not (isinstance(ids, list) and ids and all(isinstance(id, str) for id in ids)):
            raise BadRequest("ids: must be an array of task ids")
        self._world.book.delete(map(str, ids))
        return success(None)

    async def models(self, request: Request, call: Call) -> Response:  # noqa: ARG002
        """The catalogue."""
        return success(
            [
                answers.model(id, catalogue.builtin(id) or {}, PRICE)
                for id in catalogue.builtin_models()
            ]
        )

    async def balance(self, request: Request, call: Call) -> Response:  # noqa: ARG002
        """What is left."""
        return success({"balance": round(BALANCE - self._world.book.spent, 6)})

    async def secret(self, request: Request, call: Call) -> Response:  # noqa: ARG002
        """What webhooks are signed with."""
        return success({"secret": self._world.secret})


_CONTENT_TYPE = re.compile(r"[a-z0-9.+-]{1,64}/[a-z0-9.+-]{1,64}")


class Files:
    """Gives and takes files; none of it asks for a key but the announcement of an upload."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def first_frame(self, request: Request) -> Response:  # noqa: ARG002
        """A picture that the models take."""
        return Response(media.png(), media_type="image/png")

    async def output(self, request: Request) -> Response:
        """What a task made."""
        now = self._world.clock()
        task = self._world.book.find(request.path_params["id"], now)
        if task is None or task.status(now) != Status.COMPLETED:
            return refusal(404, "No such file; outputs exist from completion on, for 7 days")
        return Response(media.mp4(seconds(task.input)), media_type="video/mp4")

    async def announce(self, request: Request, call: Call) -> Response:  # noqa: ARG002
        """Make a place for an upload."""
        world, query = self._world, read_object(await request.body())
        content_type = query.get("content_type") or "application/octet-stream"
        if not (isinstance(content_type, str) and _CONTENT_TYPE.fullmatch(content_type)):
            raise BadRequest("content_type: must be a type such as image/png")
        filename, size = text(query, "filename"), whole(query, "size", MOST)
        upload = world.uploads.announce(filename, size, content_type, world.clock())
        url = f"{world.url}/uploads/{upload.name}"
        put: dict[str, JSON] = {
            "method": "PUT",
            "url": f"{url}?signature={upload.signature}",
            "headers": dict(upload.headers),
        }
        return success({"upload": put, "download_url": url})

    async def put(self, request: Request) -> Response:
        """Take an upload's bytes; answers as a storage service does."""
        world = self._world
        world.calls.received(Kind.PUT)
        upload = world.uploads.find(request.path_params["name"], world.clock())
        if upload is None:
            return _storage_error(404, "There is no such upload")
        signature, body = request.query_params.get("signature", ""), request.stream()
        try:
            await world.uploads.put(upload, signature, request.headers, body)
        except Refused as error:
            await _pass_over(body)
            return _storage_error(error.status, str(error))
        except ClientDisconnect:
            pass  # Nobody is there to read the answer.
        return Response()

    async def upload(self, request: Request) -> Response:
        """Give an upload's bytes back."""
        upload = self._world.uploads.find(request.path_params["name"], self._world.clock())
        if upload is None or upload.path is None:
            return refusal(404, "No such file; uploads are kept for 7 days")
        return FileResponse(upload.path, media_type=upload.content_type)


async def _pass_over(body: AsyncIterator[bytes]) -> None:
    """Read what is left: who is still sending would not see the answer."""
    with contextlib.suppress(ClientDisconnect):
        async for _ in body:
            pass


def _storage_error(status: int, reason: str) -> Response:
    body = f"<Error><Message>{reason}</Message></Error>"
    return Response(body, status, {"Connection": "close"}, "application/xml")


MAX_ADVANCE_S = 10 * 365 * 24 * 3600
"""Seconds of life by which it may jump."""


class Admin:
    """What only a simulator has."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def bill(self, request: Request) -> Response:  # noqa: ARG002
        """Every task that was created."""
        book = self._world.book
        lines: list[JSON] = [
            {
                "id": task.id,
                "model": task.model,
                "cost": task.cost,
                "at": task.created_at,
                "webhook": task.webhook is not None,
            }
            for task in book.tasks.values()
        ]
        return JSONResponse({"submits": len(lines), "cost": round(book.spent, 6), "tasks": lines})

    async def webhooks(self, request: Request) -> Response:  # noqa: ARG002
        """Every attempt at a webhook."""
        return JSONResponse([attempt.as_json() for attempt in self._world.sender.attempts])

    async def calls(self, request: Request) -> Response:  # noqa: ARG002
        """How many calls came."""
        return JSONResponse(self._world.calls.counts())

    async def faults(self, request: Request) -> Response:
        """Replace what goes wrong."""
        words, plan = read_object(await request.body()).get("faults"), self._world.plan
        if not isinstance(words, str):
            raise BadRequest("faults: must be a text such as drop=0.2,stale=0.1")
        try:
            plan.faults = Faults.parse(words, plan.faults.seed)
        except FaultsError as error:
            raise BadRequest(str(error)) from None
        return JSONResponse({"faults": dict(plan.faults.rates), "seed": plan.faults.seed})

    async def forward(self, request: Request) -> Response:
        """Let life jump ahead."""
        seconds = read_object(await request.body()).get("seconds")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            seconds = -1
        if not 0 <= seconds <= MAX_ADVANCE_S:
            raise BadRequest(f"seconds: must be a number from 0 to {MAX_ADVANCE_S}")
        self._world.pace.forward(seconds)
        return JSONResponse({"seconds": seconds})

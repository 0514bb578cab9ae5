"""What the API answers about tasks and the account, and the call that makes it forget tasks."""

from __future__ import annotations

from itertools import islice

from starlette.requests import Request
from starlette.responses import Response

from submitter import catalogue
from submitter.prediction import JSON
from submitter.simulator import answers
from submitter.simulator.answers import refusal, success
from submitter.simulator.calls import Call
from submitter.simulator.checks import BadRequest, moment, read_object, whole
from submitter.simulator.faults import Fault
from submitter.simulator.tasks import Task
from submitter.simulator.world import BALANCE, PRICE, World


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

"""A look behind the scenes, and a hand in them: for tests, demonstrations and the curious.

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

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from submitter.prediction import JSON
from submitter.simulator.checks import BadRequest, read_object
from submitter.simulator.faults import Faults, FaultsError
from submitter.simulator.world import World

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

"""What costs money: a new task, and what it would cost."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from submitter import catalogue
from submitter.simulator import answers
from submitter.simulator.answers import refusal, success
from submitter.simulator.calls import Call
from submitter.simulator.checks import BadRequest, check_input, check_webhook, read_object, text
from submitter.simulator.faults import Fault
from submitter.simulator.world import World, price


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

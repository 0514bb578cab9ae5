"""Lambda functions: `handler.receive` for each request, `handler.drain` for the schedule."""

from collections.abc import Mapping
from typing import Any

from mangum import Mangum

from receiver import scheduled
from receiver.web.asgi import app

receive = Mangum(app, lifespan="off")


def drain(event: object, context: Any) -> Mapping[str, int]:  # noqa: ARG001 - Lambda's signature
    """Run what is due, and return before the function's timeout."""
    return scheduled.drain(context.get_remaining_time_in_millis() / 1000 - 5)

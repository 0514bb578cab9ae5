"""What `wavehook demo` does with a finished video: fetch it once, and count that it was done."""

from __future__ import annotations

from collections import Counter
from contextvars import ContextVar
from dataclasses import dataclass, field

import httpx

from receiver.cli.demo_ledger import OWN
from receiver.event import Event
from receiver.handlers.base import Context
from receiver.handlers.decorator import on
from receiver.retry import Backoff
from submitter.connection import tls
from submitter.prediction import JSON

STUMBLES = "stumbles"
"""The context's key that lets the first attempt fail."""


@dataclass(slots=True)
class Tally:
    """What handlers really did, beside what the store says of them.

    Attributes:
        runs: runs that came to their end, by task id and idempotency key.
    """

    runs: Counter[tuple[str, str]] = field(default_factory=Counter)


TALLY: ContextVar[Tally] = ContextVar("tally")
"""Of this demo; its dispatcher's tasks inherit it."""


@on("prediction.*", name=OWN, timeout="10s", retry=Backoff(attempts=6, base=0.4, cap=1.0))
async def publish(event: Event, context: Context) -> JSON:
    """Fetch the video, and keep its size as the result."""
    prediction = event.prediction
    if prediction is None or not prediction.outputs or not isinstance(event.context, dict):
        raise ValueError("the demo's tasks end with a video and carry a context")
    if event.context.get(STUMBLES) and context.attempt == 1:
        raise ConnectionError("this first attempt fails on purpose")
    async with httpx.AsyncClient(trust_env=False, verify=tls()) as client:
        answer = await client.get(prediction.outputs[0])
    answer.raise_for_status()
    TALLY.get().runs[prediction.id, context.key] += 1
    return {
        "task": event.context.get("task"),
        "video": prediction.outputs[0],
        "bytes": len(answer.content),
    }

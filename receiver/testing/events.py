"""Events and contexts with sensible defaults, made as the receiver makes them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from receiver.event import PARKED, Delivery, Dispatch, DispatchState, Event
from receiver.handlers.base import Context
from receiver.handlers.retry import describe
from receiver.sources.base import WAVESPEED, read_event
from submitter.prediction import JSON

MODEL = "kwaivgi/kling-v2.1-i2v-standard"
VIDEO = "https://cdn.example/video.mp4"

Earlier = Mapping[str, "JSON | Exception"]
"""What the handlers named in `after` came to, by name: a result, or the error that one died of."""


def event(
    status: str = "completed",
    *,
    outputs: Sequence[str] | None = None,
    context: JSON = None,
    body: bytes | None = None,
    source: str = WAVESPEED,
    at: float | None = None,
    **fields: JSON,
) -> Event:
    """The event that a verified webhook becomes.

    Args:
        status: of the prediction.
        outputs: URLs; unless given, one video where the status is `completed`, else none.
        context: what the submitter sealed into the webhook's URL.
        body: what was sent instead of a prediction.
        source: the name of the source.
        at: Unix seconds, when it happened and came in; now, unless given.
        fields: of the prediction, as the API names them: `id`, `model`, `error`, `code`,
            `input`, …; they go before the usual ones.
    """
    now = time.time() if at is None else at
    if body is None:
        body = json.dumps(_prediction(status, outputs) | fields).encode()
    delivery = Delivery(source, (), body, received_at=now)
    # As the sources do: WaveSpeedAI sends nothing but predictions, others send anything.
    kind = PARKED if source == WAVESPEED else "message"
    return replace(read_event(delivery, "msg-1", now, kind), context=context)


def context(
    event: Event,
    *,
    handler: str = "handler",
    attempt: int = 1,
    timeout: float = 30.0,
    earlier: Earlier | None = None,
) -> Context:
    """The context of one run, for a handler that is called without a dispatcher.

    Args:
        event: the run's event.
        handler: the handler's name.
        attempt: from 1.
        timeout: seconds from now until the deadline.
        earlier: what the handlers named in `after` came to.
    """
    key = Dispatch(event.id, handler).key
    done = {name: _settled(event, name, came) for name, came in (earlier or {}).items()}
    return Context(key, handler, attempt, time.time() + timeout, done)


def _prediction(status: str, outputs: Sequence[str] | None) -> dict[str, JSON]:
    done = status == "completed"
    if outputs is None:
        outputs = [VIDEO] if done else []
    return {
        "id": "task-1",
        "model": MODEL,
        "status": status,
        "outputs": list(outputs),
        "has_nsfw_contents": [False for _ in outputs],
        "created_at": "2026-08-01T12:00:00.123456789Z",
        "error": "the model could not do it" if status == "failed" else "",
        "timings": {"inference": 41_250 if done else 0},
        "input": {"prompt": "A lighthouse at dusk", "duration": 5},
    }


def _settled(event: Event, name: str, came: JSON | Exception) -> Dispatch:
    done = Dispatch(event.id, name, DispatchState.DONE, 1, 1, settled_at=event.received_at)
    if isinstance(came, Exception):
        return replace(done, state=DispatchState.DEAD, error=describe(came))
    return replace(done, result=came)

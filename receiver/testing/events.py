"""Events and contexts with default values, made as the receiver makes them."""

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
"""Outcomes of the handlers named in `after`: the result, or the error of a dead one, by name."""


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
    """Make the event of a verified webhook.

    Args:
        status: the prediction's status, such as `completed` or `failed`.
        outputs: URLs; by default one video if the status is `completed`, else none.
        context: the context that the submitter sealed into the webhook's URL.
        body: a raw body in place of a prediction; the arguments about the prediction have no
            effect then.
        source: the name of the source.
        at: Unix seconds of the event and of its arrival; by default now.
        fields: fields of the prediction, as the API names them: `id`, `model`, `error`, `code`,
            `input`, …; they replace the defaults.
    """
    now = time.time() if at is None else at
    if body is None:
        body = json.dumps(_prediction(status, outputs) | fields).encode()
    delivery = Delivery(source, (), body, received_at=now)
    # As the sources do: WaveSpeedAI sends predictions only, others send anything.
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
    """Make the context of one run, to call a handler without a dispatcher.

    Args:
        event: the run's event.
        handler: the handler's name.
        attempt: number of the attempt, from 1.
        timeout: seconds from now until the deadline.
        earlier: outcomes of the handlers named in `after`, by name.
    """
    key = Dispatch(event.id, handler).key
    done = {name: _settled(event, name, outcome) for name, outcome in (earlier or {}).items()}
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


def _settled(event: Event, name: str, outcome: JSON | Exception) -> Dispatch:
    done = Dispatch(event.id, name, DispatchState.DONE, 1, 1, settled_at=event.received_at)
    if isinstance(outcome, Exception):
        return replace(done, state=DispatchState.DEAD, error=describe(outcome))
    return replace(done, result=outcome)

"""Events that chat messages are made of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from receiver.event import Dispatch, DispatchState, Event
from receiver.handlers.archive.result import ArchivedFile, result_of
from receiver.handlers.base import Context
from receiver.handlers.chat.message import Message, compose
from receiver.handlers.chat.settings import ChatSettings
from submitter.prediction import JSON

NOW = 1_785_585_763.0
"""2026-08-01 12:02:43 UTC, a second after the task's end."""

TASK = "7f3c1d0e"
MODEL = "kwaivgi/kling-v2.1-i2v-standard"
VIDEO = "https://cdn.example.com/out/video.mp4?sig=a%2Fb&x=1"
HOSTILE = (
    "@everyone <!channel> <@U0123ABCD> @here **bold** _it_ ~no~ `code` [x](https://evil.example) "
    "<script>alert(1)</script> {{DATE(2026)}} https://evil.example/a :smile: ||spoiler|| "
    "\u202eright to left\u200b\u2066 \x1b[31m\r\n# heading\n> quote -list"
)


def event(
    type: str = "prediction.completed", context: JSON = None, at: float = NOW - 1.0, **body: Any
) -> Event:
    """An event about a task; `body` goes over a completed prediction."""
    told: dict[str, Any] = {
        "id": TASK,
        "status": type.partition(".")[2],
        "model": MODEL,
        "outputs": [VIDEO],
        "has_nsfw_contents": [False],
        "created_at": "2026-08-01T12:01:40.123456789Z",
        "timings": {"inference": 62_000},
        "input": {"prompt": "A lighthouse at dusk", "duration": 5},
    }
    told |= body
    return Event(
        id=f"wavespeed:{told['id']}:{told['status']}",
        source="wavespeed",
        type=type,
        subject=str(told["id"]),
        model=told["model"],
        context={"user": "ada", "cost": 0.25} if context is None else context,
        body=json.dumps(told).encode(),
        occurred_at=at,
        received_at=at,
    )


def failed(code: int | None, error: str | None = "it did not work", **body: Any) -> Event:
    """A task that failed."""
    return event("prediction.failed", outputs=[], code=code, error=error, **body)


def run(
    seconds: float = 30.0, attempt: int = 1, earlier: Mapping[str, Dispatch] | None = None
) -> Context:
    """A run of the handler `team`."""
    key = f"wavespeed:{TASK}:completed/team"
    return Context(key, "team", attempt, NOW + seconds, earlier or {})


def kept(url: str | None = "https://keep.example.com/7f3c1d0e/0.mp4") -> dict[str, Dispatch]:
    """An archive that has kept the video."""
    files = [ArchivedFile(VIDEO, "7f3c1d0e/0.mp4", url, 4096, "ab" * 32, "video/mp4")]
    done = DispatchState.DONE
    return {"keep": Dispatch("id", "keep", done, attempt=1, result=result_of(files))}


def lost() -> dict[str, Dispatch]:
    """An archive that has given up."""
    error = "storage.example.com: HTTP 403"
    return {"keep": Dispatch("id", "keep", DispatchState.DEAD, attempt=8, error=error)}


def message(
    event: Event, context: Context | None = None, now: float = NOW, **settings: Any
) -> Message:
    """What a message says of an event."""
    return compose(event, context or run(), now, ChatSettings.model_validate(settings))


PICTURES = [f"https://cdn.example.com/{number}.png" for number in range(12)]

SAMPLES: dict[str, Message] = {
    "video": message(event()),
    "kept": message(event(), run(earlier=kept())),
    "archive-dead": message(event(), run(earlier=lost())),
    "nsfw": message(event(outputs=[VIDEO, *PICTURES[:2]], has_nsfw_contents=[True, False]), run()),
    "many-pictures": message(event(outputs=PICTURES, has_nsfw_contents=None)),
    "moderated": message(failed(1200, "NSFW content detected in the prompt")),
    "expired": message(event(), now=NOW + 8 * 86_400.0),
    "hostile": message(
        event(
            id=HOSTILE,
            model=HOSTILE,
            context={"user": HOSTILE, "cost": "0.5"},
            input={"prompt": HOSTILE},
        ),
        run(earlier={"keep": Dispatch("id", "keep", DispatchState.DEAD, error=HOSTILE)}),
        prompt=1000,
    ),
    "hostile-failure": message(failed(1403, HOSTILE)),
    "other": message(
        Event("billing:1", "billing", "invoice.paid", context="x", body=b'{"paid": true}')
    ),
}
"""One of every kind of message, by name."""

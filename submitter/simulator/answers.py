"""The shapes of the vendor's answers, built from its documentation."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from starlette.responses import JSONResponse

from submitter.prediction import JSON, TERMINAL, Status
from submitter.simulator.faults import Fault
from submitter.simulator.tasks import Task

API = "/api/v3"

UNKNOWN_STATUS = "warming_up"
"""A status that no document names."""


def success(data: JSON) -> JSONResponse:
    """The envelope of every answer that is no error."""
    return JSONResponse({"code": 200, "message": "success", "data": data})


def refusal(status: int, message: str) -> JSONResponse:
    """The commonest shape of an error."""
    return JSONResponse({"code": status, "message": message}, status_code=status)


def prediction(task: Task, now: float, url: str) -> dict[str, JSON]:
    """A task as the result endpoint shows it.

    Args:
        task: the task.
        now: Unix seconds.
        url: where the simulator is reached.
    """
    status = task.status(now)
    done = status == Status.COMPLETED
    ended = now >= task.ended_at
    answer: dict[str, JSON] = {
        "id": task.id,
        "model": task.model,
        "outputs": [f"{url}/outputs/{task.id}.mp4"] if done else [],
        "urls": {"get": f"{url}{API}/predictions/{task.id}/result"},
        "has_nsfw_contents": [False] if done else None,
        "status": status,
        "created_at": _moment(task.created_at),
        "error": task.ending.error if ended else "",
        "timings": {"inference": _inference(task) if ended else 0},
    }
    if ended and task.ending.code is not None:
        answer["code"] = task.ending.code
    return answer


def past(task: Task, now: float, url: str) -> dict[str, JSON]:
    """A task as the history shows it: with its input, under either of two names."""
    name = "inputs" if task.number % 2 else "input"
    return {**prediction(task, now, url), name: dict(task.input)}


def webhook(task: Task, now: float, url: str, hits: Callable[[Fault], bool]) -> bytes:
    """The body of a webhook: flat, in one of the two documented shapes by turns.

    Args:
        task: the task, ended.
        now: Unix seconds.
        url: where the simulator is reached.
        hits: whether a fault happens to it.
    """
    body = prediction(task, now, url)
    if task.number % 2:
        body["executionTime"] = _inference(task)
    else:
        body["input"] = dict(task.input)
    body = spoiled(body, hits)
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


def spoiled(body: dict[str, JSON], hits: Callable[[Fault], bool]) -> dict[str, JSON]:
    """A prediction as it is on a bad day; whether the task has ended is never told wrongly.

    Args:
        body: whole.
        hits: whether a fault happens to it.
    """
    done, outputs = body["status"] == Status.COMPLETED, body["outputs"]
    if done and hits(Fault.NULL_NSFW):
        body = {**body, "has_nsfw_contents": None}
    if done and isinstance(outputs, list) and hits(Fault.OBJECT_OUTPUTS):
        body = {**body, "outputs": [{"url": url} for url in outputs]}
    if body["status"] not in TERMINAL and hits(Fault.UNKNOWN_STATUS):
        body = {**body, "status": UNKNOWN_STATUS}
    if hits(Fault.MISSING_FIELDS):
        kept = ("id", "status", "outputs") if done else ("id", "status")
        body = {name: body[name] for name in kept}
    return body


def model(id: str, schema: Mapping[str, JSON], price: float) -> dict[str, JSON]:
    """A model as the catalogue endpoint shows it."""
    description = schema.get("description")
    return {
        "model_id": id,
        "name": id,
        "description": description if isinstance(description, str) else "",
        "type": "text-to-video" if "-t2v" in id else "image-to-video",
        "base_price": price,
        "api_schema": {
            "api_schemas": [
                {
                    "type": "model_run",
                    "method": "POST",
                    "api_path": f"{API}/{id}",
                    "request_schema": dict(schema),
                }
            ]
        },
    }


def _inference(task: Task) -> int:
    """Milliseconds of life."""
    return round(task.life * 1000)


def _moment(seconds: float) -> str:
    """RFC 3339 to the nanosecond, as the vendor writes it."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S.%f}000Z"

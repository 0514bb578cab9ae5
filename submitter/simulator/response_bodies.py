"""Response and webhook bodies in the shapes that the vendor documents."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from starlette.responses import JSONResponse

from submitter.prediction import JSON, TERMINAL, Status
from submitter.simulator.faults import FaultKind
from submitter.simulator.tasks import Task
from submitter.timestamps import rfc3339_microseconds

API_PATH = "/api/v3"

UNKNOWN_STATUS = "warming_up"
"""A status that the vendor does not document."""


def success(data: JSON) -> JSONResponse:
    """A success response in the API's envelope."""
    return JSONResponse({"code": 200, "message": "success", "data": data})


def error_response(status: int, message: str) -> JSONResponse:
    """An error response in its most common shape."""
    return JSONResponse({"code": status, "message": message}, status_code=status)


def prediction(task: Task, now: float, url: str) -> dict[str, JSON]:
    """A task in the shape of the result endpoint.

    Args:
        task: the task.
        now: Unix seconds.
        url: base URL of the simulator.
    """
    status = task.status(now)
    done = status == Status.COMPLETED
    ended = now >= task.ended_at
    body: dict[str, JSON] = {
        "id": task.id,
        "model": task.model,
        "outputs": [f"{url}/outputs/{task.id}.mp4"] if done else [],
        "urls": {"get": f"{url}{API_PATH}/predictions/{task.id}/result"},
        "has_nsfw_contents": [False] if done else None,
        "status": status,
        "created_at": _rfc3339(task.created_at),
        "error": task.ending.error if ended else "",
        "timings": {"inference": _inference(task) if ended else 0},
    }
    if ended and task.ending.code is not None:
        body["code"] = task.ending.code
    return body


def history_item(task: Task, now: float, url: str) -> dict[str, JSON]:
    """A task in the shape of the history: with its input, under either of two documented names."""
    name = "inputs" if task.number % 2 else "input"
    return {**prediction(task, now, url), name: dict(task.input)}


def webhook(task: Task, now: float, url: str, hits: Callable[[FaultKind], bool]) -> bytes:
    """Body of a webhook, in the two documented shapes in turn.

    Args:
        task: a finished task.
        now: Unix seconds.
        url: base URL of the simulator.
        hits: says if a fault is injected.
    """
    body = prediction(task, now, url)
    if task.number % 2:
        body["executionTime"] = _inference(task)
    else:
        body["input"] = dict(task.input)
    body = with_faults(body, hits)
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


def with_faults(body: dict[str, JSON], hits: Callable[[FaultKind], bool]) -> dict[str, JSON]:
    """A prediction with the injected faults; finished and unfinished tasks stay distinct.

    Args:
        body: the prediction without faults.
        hits: says if a fault is injected.
    """
    done, outputs = body["status"] == Status.COMPLETED, body["outputs"]
    if done and hits(FaultKind.NULL_NSFW):
        body = {**body, "has_nsfw_contents": None}
    if done and isinstance(outputs, list) and hits(FaultKind.OBJECT_OUTPUTS):
        body = {**body, "outputs": [{"url": url} for url in outputs]}
    if body["status"] not in TERMINAL and hits(FaultKind.UNKNOWN_STATUS):
        body = {**body, "status": UNKNOWN_STATUS}
    if hits(FaultKind.MISSING_FIELDS):
        kept = ("id", "status", "outputs") if done else ("id", "status")
        body = {name: body[name] for name in kept}
    return body


def model(id: str, schema: Mapping[str, JSON], price: float) -> dict[str, JSON]:
    """A model in the shape of the catalogue endpoint."""
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
                    "api_path": f"{API_PATH}/{id}",
                    "request_schema": dict(schema),
                }
            ]
        },
    }


def _inference(task: Task) -> int:
    """Simulated milliseconds from submission to end."""
    return round(task.run_time * 1000)


def _rfc3339(seconds: float) -> str:
    """RFC 3339 with nanoseconds, as the vendor writes it."""
    return rfc3339_microseconds(seconds).removesuffix("Z") + "000Z"

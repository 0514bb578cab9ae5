"""The API's own object: one generation task and its state, read leniently.

Documents, samples and clients of the API disagree about a prediction's fields, so only `id` and
`status` are required here; a field of an unexpected type reads as absent, and nothing is lost,
because `raw` keeps the whole object.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self, TypeAlias, TypeGuard, cast

from submitter.errors import TASK_CODE_MEANINGS, SubmitterError
from submitter.timestamps import parse_rfc3339

JSON: TypeAlias = "dict[str, JSON] | list[JSON] | str | int | float | bool | None"


class Status(enum.StrEnum):
    """The statuses that are known; others occur and are kept as plain text."""

    #: Accepted, not started.
    CREATED = "created"
    #: Waiting for a place.
    PENDING = "pending"
    #: Running.
    PROCESSING = "processing"
    #: Ended well: `outputs` holds the results.
    COMPLETED = "completed"
    #: Ended badly: `error` and `code` say why.
    FAILED = "failed"
    #: Ended by a person.
    CANCELLED = "cancelled"
    #: Ended by the API's own time limit.
    TIMEOUT = "timeout"
    #: Removed from the history.
    DELETED = "deleted"


TERMINAL = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.TIMEOUT})


@dataclass(frozen=True, slots=True)
class Prediction:
    """One generation task, as the API described it in one response.

    Attributes:
        id: the task id, opaque text.
        status: one of `Status`, or text that is not known yet; never mapped to a known one.
        model: the model's id, such as `kwaivgi/kling-v2.1-i2v-standard`.
        outputs: URLs of the results, in order; they expire 7 days after the task ended.
        error: the API's error text; None if the task did not fail.
        code: the API's inner code of a failed task, such as 1200 for content moderation.
        has_nsfw_contents: one flag an output; empty where the API said nothing (also null).
        created_at: when the task was created; aware, microseconds at the finest.
        inference_ms: time the model ran, in milliseconds.
        result_url: where the API answers for this task.
        input: the task's input, if the API repeats it.
        raw: the whole object. Left out of `repr`: it may hold prompts.
    """

    id: str
    status: str
    model: str | None = None
    outputs: tuple[str, ...] = field(default=(), repr=False)
    error: str | None = field(default=None, repr=False)
    code: int | None = None
    has_nsfw_contents: tuple[bool, ...] = ()
    created_at: datetime | None = None
    inference_ms: float | None = None
    result_url: str | None = field(default=None, repr=False)
    input: Mapping[str, JSON] | None = field(default=None, repr=False)
    raw: Mapping[str, JSON] = field(default_factory=dict, repr=False)

    @property
    def terminal(self) -> bool:
        """True if the task has finished, successfully or not."""
        return self.status in TERMINAL

    @property
    def succeeded(self) -> bool:
        """True if the task has finished successfully."""
        return self.status == Status.COMPLETED

    def raise_for_status(self) -> Self:
        """Return the prediction itself, unless the task ended badly.

        Raises:
            TaskFailed: it did.
        """
        if self.terminal and not self.succeeded:
            raise TaskFailed(self)
        return self

    @classmethod
    def parse(cls, data: JSON) -> Prediction | None:
        """Read a prediction from parsed JSON.

        Args:
            data: any JSON value.

        Returns:
            The prediction, or None if `data` is not an object with the texts `id` and `status`.
        """
        if not is_prediction(data):
            return None
        urls, timings = _object(data.get("urls")), _object(data.get("timings"))
        # Past tasks repeat their request as `input` or `inputs`.
        input = data.get("input", data.get("inputs"))
        return cls(
            id=cast("str", data["id"]),
            status=cast("str", data["status"]),
            model=_text(data.get("model")),
            outputs=_outputs(data.get("outputs")),
            error=_text(data.get("error")),
            code=_integer(data.get("code")),
            has_nsfw_contents=_flags(data.get("has_nsfw_contents")),
            created_at=parse_rfc3339(data.get("created_at")),
            inference_ms=_number(timings.get("inference", data.get("executionTime"))),
            result_url=_text(urls.get("get")),
            input=input if isinstance(input, dict) else None,
            raw=data,
        )


def is_prediction(data: JSON) -> TypeGuard[dict[str, JSON]]:
    """True for a JSON object with the texts `id` and `status`."""
    if not isinstance(data, dict):
        return False
    id, status = data.get("id"), data.get("status")
    return isinstance(id, str) and id != "" and isinstance(status, str) and status != ""


def _object(value: JSON) -> dict[str, JSON]:
    return value if isinstance(value, dict) else {}


def _text(value: JSON) -> str | None:
    return value if isinstance(value, str) and value else None


def _integer(value: JSON) -> int | None:
    """An integer that every database takes, and that an error can show."""
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if abs(value) < 2**63 else None


def _number(value: JSON) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def _flags(value: JSON) -> tuple[bool, ...]:
    return tuple(item is True for item in value) if isinstance(value, list) else ()


def _outputs(value: JSON) -> tuple[str, ...]:
    """URLs, whether an output is a text or an object with a `url`."""
    if not isinstance(value, list):
        return ()
    urls = (item.get("url") if isinstance(item, dict) else item for item in value)
    return tuple(url for url in urls if isinstance(url, str) and url)


class TaskFailed(SubmitterError):
    """The task ended badly.

    Attributes:
        prediction: with `error` and `code`; its words may repeat an input.
    """

    def __init__(self, prediction: Prediction) -> None:
        code = prediction.code
        meaning = TASK_CODE_MEANINGS.get(code) if code else None
        shown = f", code {code}" + (f": {meaning}" if meaning else "") if code else ""
        super().__init__(f"the task {prediction.id} ended as {prediction.status}{shown}")
        self.prediction = prediction

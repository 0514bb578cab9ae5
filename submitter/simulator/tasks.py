"""The life of tasks over time: pure, with the time as an argument.

A prompt may ask for an end: see `ENDINGS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from submitter.prediction import JSON, Status
from submitter.simulator.timeline import Moment, Timeline


@dataclass(frozen=True, slots=True)
class Ending:
    """What a task comes to.

    Attributes:
        status: the terminal status.
        code: the API's inner code; None where nothing went wrong.
        error: the API's text.
        seconds: of life until it ends; None leaves it to the task's number.
    """

    status: Status
    code: int | None = None
    error: str = ""
    seconds: float | None = None


COMPLETED = Ending(Status.COMPLETED)

ENDINGS: Mapping[str, Ending] = {
    "[fail]": Ending(Status.FAILED, 1405, "Task failed", 20.0),
    "[moderated]": Ending(Status.FAILED, 1200, "Content flagged by moderation", 5.0),
    "[unreachable]": Ending(Status.FAILED, 1402, "Media URL is not reachable", 5.0),
    "[timeout]": Ending(Status.TIMEOUT, 5004, "Task timed out", 120.0),
    "[cancelled]": Ending(Status.CANCELLED, None, "Task was cancelled", 10.0),
}
"""A prompt that holds one of these words ends so; all others complete."""

QUEUED = 2.0
"""Seconds of life before a task starts."""


@dataclass(frozen=True, slots=True)
class Task:
    """One generation task.

    Attributes:
        id: 32 hex digits.
        number: from 0, in order of submission.
        model: the model's id.
        input: what was asked for.
        webhook: where the result is to be sent.
        created: when it was submitted.
        ending: what it comes to.
        life: seconds that it would take at the API.
        timeline: of life.
        cost: USD.
    """

    id: str
    number: int
    model: str
    input: Mapping[str, JSON] = field(repr=False)
    webhook: str | None = field(repr=False)
    created: Moment
    ending: Ending
    life: float
    timeline: Timeline = field(repr=False)
    cost: float

    @property
    def created_at(self) -> float:
        """Unix seconds."""
        return self.created.at

    @property
    def ended_at(self) -> float:
        """Unix seconds."""
        return self.reaches(self.life)

    def reaches(self, age: float) -> float:
        """When it is so many seconds of life old (Unix seconds)."""
        return self.timeline.after(self.created, age)

    def status(self, now: float) -> Status:
        """How far it is at a time (Unix seconds)."""
        if now >= self.ended_at:
            return self.ending.status
        if now >= self.reaches(QUEUED):
            return Status.PROCESSING
        return Status.CREATED


def ending_for(prompt: str) -> Ending:
    """The end that a prompt asks for."""
    return next((ending for word, ending in ENDINGS.items() if word in prompt), COMPLETED)

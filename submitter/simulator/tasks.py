"""The life of tasks over time: pure, with the time as an argument.

A prompt may ask for an end: see `ENDINGS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import uuid4

from submitter.prediction import JSON, Status

KEPT = 7 * 24 * 3600.0
"""Seconds for which the API knows a task."""


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
        created_at: Unix seconds.
        ending: what it comes to.
        life: seconds that it would take at the API.
        speed: how many times faster than that it runs here.
        cost: USD.
    """

    id: str
    number: int
    model: str
    input: Mapping[str, JSON] = field(repr=False)
    webhook: str | None = field(repr=False)
    created_at: float
    ending: Ending
    life: float
    speed: float
    cost: float

    @property
    def ended_at(self) -> float:
        """Unix seconds."""
        return self.created_at + self.life / self.speed

    def status(self, now: float) -> Status:
        """How far it is at a time (Unix seconds)."""
        if now >= self.ended_at:
            return self.ending.status
        if now >= self.created_at + QUEUED / self.speed:
            return Status.PROCESSING
        return Status.CREATED


@dataclass(slots=True)
class Book:
    """All tasks that were submitted; also the bill, for every submit is one.

    Attributes:
        speed: how many times faster than life tasks run.
        tasks: by id, in order of submission.
    """

    speed: float = 1.0
    tasks: dict[str, Task] = field(default_factory=dict)

    def submit(
        self,
        model: str,
        input: Mapping[str, JSON],
        *,
        webhook: str | None,
        cost: float,
        now: float,
        at_once: bool = False,
    ) -> Task:
        """Take a task on; it is paid for from here.

        Args:
            model: the model's id.
            input: valid for the model.
            webhook: where to send the result.
            cost: USD.
            now: Unix seconds.
            at_once: it ends the moment it is created.
        """
        number = len(self.tasks)
        ending = ending_for(str(input.get("prompt", "")))
        # Lives differ, so that tasks do not end in the order in which they were submitted.
        life = ending.seconds or 40.0 + 7 * number % 25
        task = Task(
            id=uuid4().hex,
            number=number,
            model=model,
            input=input,
            webhook=webhook,
            created_at=now,
            ending=ending,
            life=0.0 if at_once else life,
            speed=self.speed,
            cost=cost,
        )
        self.tasks[task.id] = task
        return task

    def find(self, id: str, now: float) -> Task | None:
        """A task of the last 7 days."""
        task = self.tasks.get(id)
        return task if task and now - task.created_at < KEPT else None

    def history(self, now: float) -> list[Task]:
        """The tasks of the last 7 days, newest first."""
        return [task for task in reversed(self.tasks.values()) if now - task.created_at < KEPT]


def ending_for(prompt: str) -> Ending:
    """The end that a prompt asks for."""
    return next((ending for word, ending in ENDINGS.items() if word in prompt), COMPLETED)

"""The life of tasks over time: pure, with the time as an argument.

A prompt may ask for an end: see `ENDINGS`.

All tasks that were submitted: what the API knows of them, and what they cost.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from uuid import uuid4

from submitter.prediction import JSON, Status
from submitter.simulator.clock import Moment, Timeline


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


KEPT = 7 * 24 * 3600.0
"""Seconds of life for which the API knows a task after its end."""


class Book:
    """All tasks that were submitted; also the bill, for every submit is one.

    Attributes:
        tasks: by id, in order of submission.
        spent: USD.

    Args:
        timeline: of life.
        kept: seconds of life for which a task and its outputs are known after the task's end.
    """

    def __init__(self, timeline: Timeline | None = None, kept: float = KEPT) -> None:
        self.tasks: dict[str, Task] = {}
        self.spent = 0.0
        self._timeline = timeline or Timeline()
        self._kept = kept
        # Those that the API still knows, oldest first.
        self._known: OrderedDict[str, Task] = OrderedDict()

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
            created=self._timeline.moment(now),
            ending=ending,
            life=0.0 if at_once else life,
            timeline=self._timeline,
            cost=cost,
        )
        self.tasks[task.id] = self._known[task.id] = task
        self.spent += cost
        return task

    def find(self, id: str, now: float) -> Task | None:
        """A task that the API still knows."""
        task = self._known.get(id)
        return task if task and not self._forgotten(task, now) else None

    def history(
        self, now: float, *, after: float | None = None, before: float | None = None
    ) -> Iterator[Task]:
        """The tasks that the API still knows, newest first.

        Args:
            now: Unix seconds.
            after: only tasks created then or later.
            before: only tasks created earlier than then.
        """
        while self._known and self._forgotten(oldest := next(iter(self._known.values())), now):
            del self._known[oldest.id]
        for task in reversed(self._known.values()):
            if after is not None and task.created_at < after:
                return
            if (before is None or task.created_at < before) and not self._forgotten(task, now):
                yield task

    def delete(self, ids: Iterable[str]) -> None:
        """Forget tasks for good; those that are not known are passed over. The bill stays."""
        for id in ids:
            self._known.pop(id, None)

    def _forgotten(self, task: Task, now: float) -> bool:
        return now >= task.reaches(task.life + self._kept)

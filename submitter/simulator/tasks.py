"""Simulated tasks: their state as a function of time, their cost, and the store of all of them.

Nothing here reads a clock: the time is an argument.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from uuid import uuid4

from submitter.prediction import JSON, Status
from submitter.simulator.clock import Moment, Timeline


@dataclass(frozen=True, slots=True)
class TaskEnding:
    """End of a task.

    Attributes:
        status: the terminal status.
        code: the API's own error code; None without an error.
        error: the API's error text.
        after: simulated seconds until it ends; None lets the task's number decide.
    """

    status: Status
    code: int | None = None
    error: str = ""
    after: float | None = None


COMPLETED = TaskEnding(Status.COMPLETED)

ENDINGS: Mapping[str, TaskEnding] = {
    "[fail]": TaskEnding(Status.FAILED, 1405, "Task failed", 20.0),
    "[moderated]": TaskEnding(Status.FAILED, 1200, "Content flagged by moderation", 5.0),
    "[unreachable]": TaskEnding(Status.FAILED, 1402, "Media URL is not reachable", 5.0),
    "[timeout]": TaskEnding(Status.TIMEOUT, 5004, "Task timed out", 120.0),
    "[cancelled]": TaskEnding(Status.CANCELLED, None, "Task was cancelled", 10.0),
}
"""Endings by the word in the prompt that asks for them; every other task completes."""

QUEUE_TIME_S = 2.0
"""Simulated seconds before a task starts."""

API_RETENTION_S = 7 * 24 * 3600.0
"""Simulated seconds for which the API keeps a finished task."""

VIDEO_PRICE_USD = 0.25
"""Price of 5 seconds of video."""


@dataclass(frozen=True, slots=True)
class Task:
    """One generation task.

    Attributes:
        id: 32 hex digits.
        number: from 0, in order of submission.
        model: the model's id.
        input: the model's input.
        webhook: URL for the result.
        created: the moment of submission.
        ending: how it ends.
        run_time: simulated seconds from submission to end.
        timeline: simulated time.
        cost: USD.
    """

    id: str
    number: int
    model: str
    input: Mapping[str, JSON] = field(repr=False)
    webhook: str | None = field(repr=False)
    created: Moment
    ending: TaskEnding
    run_time: float
    timeline: Timeline = field(repr=False)
    cost: float

    @property
    def created_at(self) -> float:
        """Time of submission (Unix seconds)."""
        return self.created.at

    @property
    def ended_at(self) -> float:
        """Time of its end (Unix seconds), which may lie ahead."""
        return self.reaches(self.run_time)

    def reaches(self, age: float) -> float:
        """Unix time at which it reaches an age in simulated seconds."""
        return self.timeline.after(self.created, age)

    def status(self, now: float) -> Status:
        """Its status at a Unix time."""
        if now >= self.ended_at:
            return self.ending.status
        if now >= self.reaches(QUEUE_TIME_S):
            return Status.PROCESSING
        return Status.CREATED


def ending_for(prompt: str) -> TaskEnding:
    """The ending that a prompt asks for."""
    return next((ending for word, ending in ENDINGS.items() if word in prompt), COMPLETED)


def video_seconds(input: Mapping[str, JSON]) -> int:
    """Length of the video that an input asks for; 5 seconds by default."""
    length = input.get("duration")
    return length if isinstance(length, int) and length > 0 else 5


def price(input: Mapping[str, JSON]) -> float:
    """Price of a task in USD."""
    return VIDEO_PRICE_USD * video_seconds(input) / 5


class TaskStore:
    """All submitted tasks, and their bill.

    Attributes:
        submitted: every task by id, in order of submission, deleted ones too.
        spent: USD.

    Args:
        timeline: simulated time.
        retention: simulated seconds for which a finished task and its outputs are kept.
    """

    def __init__(
        self, timeline: Timeline | None = None, retention: float = API_RETENTION_S
    ) -> None:
        self.submitted: dict[str, Task] = {}
        self.spent = 0.0
        self._timeline = timeline or Timeline()
        self._retention = retention
        # Tasks that are neither deleted nor expired, oldest first.
        self._kept: OrderedDict[str, Task] = OrderedDict()

    def submit(
        self,
        model: str,
        input: Mapping[str, JSON],
        *,
        webhook: str | None,
        cost: float,
        now: float,
        ends_now: bool = False,
    ) -> Task:
        """Create a task, and bill it.

        Args:
            model: the model's id.
            input: valid for the model.
            webhook: URL for the result.
            cost: USD.
            now: Unix seconds.
            ends_now: the task ends the moment it is created.
        """
        number = len(self.submitted)
        ending = ending_for(str(input.get("prompt", "")))
        # Run times differ, so that tasks do not end in the order in which they were submitted.
        run_time = ending.after or 40.0 + 7 * number % 25
        task = Task(
            id=uuid4().hex,
            number=number,
            model=model,
            input=input,
            webhook=webhook,
            created=self._timeline.moment(now),
            ending=ending,
            run_time=0.0 if ends_now else run_time,
            timeline=self._timeline,
            cost=cost,
        )
        self.submitted[task.id] = self._kept[task.id] = task
        self.spent += cost
        return task

    def find(self, id: str, now: float) -> Task | None:
        """A task, unless it is deleted or expired."""
        task = self._kept.get(id)
        return task if task and not self._expired(task, now) else None

    def history(
        self, now: float, *, after: float | None = None, before: float | None = None
    ) -> Iterator[Task]:
        """Tasks that are neither deleted nor expired, newest first.

        Args:
            now: Unix seconds.
            after: earliest time of submission.
            before: all were submitted before this time.
        """
        while self._kept and self._expired(oldest := next(iter(self._kept.values())), now):
            del self._kept[oldest.id]
        for task in reversed(self._kept.values()):
            if after is not None and task.created_at < after:
                return
            if (before is None or task.created_at < before) and not self._expired(task, now):
                yield task

    def delete(self, ids: Iterable[str]) -> None:
        """Delete tasks; unknown ids are ignored, and the bill stays."""
        for id in ids:
            self._kept.pop(id, None)

    def _expired(self, task: Task, now: float) -> bool:
        return now >= task.reaches(task.run_time + self._retention)

"""All tasks that were submitted: what the API knows of them, and what they cost."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from uuid import uuid4

from submitter.prediction import JSON
from submitter.simulator.tasks import Task, ending_for
from submitter.simulator.timeline import Timeline

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

"""What happened in a demo, by task: fed by the receiver's hooks, read by the views."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from receiver.telemetry import Details

OWN = "demo"
"""The name of the demo's own handler."""


@dataclass(frozen=True, slots=True)
class Row:
    """One task as the table shows it.

    Attributes:
        number: from 1, in order of submission.
        task_id: the API's id.
        webhooks: deliveries that verified, duplicates included.
        attempts: of its handler.
        handled: its handler has ended well.
    """

    number: int
    task_id: str
    webhooks: int
    attempts: int
    handled: bool


@dataclass(frozen=True, slots=True)
class Summary:
    """How a demo ended.

    Attributes:
        submitted: tasks that the API accepted.
        verified: webhooks whose signature was right, duplicates included.
        duplicates_dropped: of these, those that were stored before.
        forgeries_refused: webhooks that did not verify.
        retried: handler attempts that were lost or failed, and made good.
        handled: tasks whose handler ended well.
        exactly_once: every task was handled, once, under a key of its own, and nothing else was.
        seconds: how long it took.
        database: where the inbox was kept; None where it was not.
        schema: in which schema, on PostgreSQL.
        handlers: of the user's handlers, by name: how many dispatches are in each state.
    """

    submitted: int
    verified: int
    duplicates_dropped: int
    forgeries_refused: int
    retried: int
    handled: int
    exactly_once: bool
    seconds: float
    database: str | None = None
    schema: str | None = None
    handlers: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


class Ledger:
    """Collects; `notes` tell a person the story in order.

    Args:
        total: how many tasks there will be.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        #: Outcomes of the user's handlers, which run beside the demo's own, by name.
        self.guests: dict[str, Counter[str]] = {}
        self.tasks: list[str] = []
        self.notes: list[str] = []
        self.refused = 0
        self.verified: Counter[str] = Counter()
        self.duplicates = 0
        self.failed = 0
        self.attempts: Counter[str] = Counter()
        self.done: set[str] = set()
        self.stored = asyncio.Event()

    def submitted(self, task_id: str) -> None:
        """A task was accepted; its webhook may have come before (F28)."""
        self.tasks.append(task_id)
        early = task_id in self.verified
        self._note(task_id, "submitted" + (", after its webhook had come" if early else ""))

    def lost(self, task_id: str) -> None:
        """A worker took the task's dispatch and died."""
        self.attempts[task_id] += 1
        self.failed += 1
        self._note(task_id, "its first worker was killed; another takes over after the lease")

    def hook(self, details: Details) -> None:
        """Told by the receiver."""
        task_id = _task_of(details.event_id)
        guest = self.guests.get(details.handler or "")
        match details.name, details.result or details.outcome:
            case "delivery.rejected", _:
                self.refused += 1
                self.notes.append(f"a webhook with a wrong signature was refused: {details.status}")
            case "delivery.accepted", "duplicate":
                self.verified[task_id] += 1
                self.duplicates += 1
                self._note(task_id, "a duplicate of its webhook was dropped")
            case "delivery.accepted", _:
                self.verified[task_id] += 1
                self._note(task_id, "webhook verified and stored")
                self.stored.set()
            case "dispatch.settled", outcome if guest is not None and outcome is not None:
                guest[outcome] += 1
                self.failed += outcome != "done"
                why = f" ({details.error})" if details.error else ""
                self._note(task_id, f"{details.handler}: {outcome}, attempt {details.attempt}{why}")
            case "dispatch.settled", "done":
                self.attempts[task_id] += 1
                self.done.add(task_id)
                self._note(task_id, f"handled, attempt {details.attempt}")
            case "dispatch.settled", _:
                self.attempts[task_id] += 1
                self.failed += 1
                self._note(task_id, f"attempt {details.attempt} failed: {details.outcome}")

    @property
    def complete(self) -> bool:
        """Whether nothing is left to wait for."""
        return len(self.tasks) == self.total and self.done.issuperset(self.tasks)

    @property
    def rows(self) -> list[Row]:
        """The tasks so far."""
        return [
            Row(number, id, self.verified[id], self.attempts[id], id in self.done)
            for number, id in enumerate(self.tasks, 1)
        ]

    def _note(self, task_id: str, text: str) -> None:
        known = task_id in self.tasks
        number = f"{self.tasks.index(task_id) + 1:>2}" if known else " ?"
        self.notes.append(f"task {number} {task_id[:8]}  {text}")


def _task_of(event_id: str | None) -> str:
    """The task id in an event's id: `source:subject:status`."""
    return event_id.split(":")[1] if event_id and event_id.count(":") == 2 else ""

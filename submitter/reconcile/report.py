"""Types of a reconciler: found results, events, the report of a round, and its callbacks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from submitter.prediction import JSON, Prediction


@dataclass(frozen=True, slots=True)
class FoundResult:
    """A result that was asked for.

    Attributes:
        prediction: terminal.
        context: of the submission, where the ledger has it.
        key: of the submission; None where the ledger does not know the task.
    """

    prediction: Prediction
    context: JSON = field(default=None, repr=False)
    key: str | None = None


DeliverResult = Callable[[FoundResult], Awaitable[bool]]
"""Hands a result to the inbox; True where it was new there."""

FindInInbox = Callable[[Sequence[str]], Awaitable[Mapping[str, Prediction]]]
"""The results that the inbox has already, by task id."""


@dataclass(frozen=True, slots=True)
class ReconcileEvent:
    """One thing that a reconciler did.

    Attributes:
        name: `reconcile.asked`, `reconcile.found`, `reconcile.failed`, `reconcile.overdue`,
            `submission.settled` (its task was found) or `submission.rejected` (there is none).
        task_id: the API's id.
        key: of the submission.
        count: of `reconcile.overdue`: how many are.
        error: of `reconcile.failed`; never repeats an input.
    """

    name: str
    task_id: str | None = None
    key: str | None = None
    count: int | None = None
    error: str | None = None


@dataclass(slots=True)
class ReconcileReport:
    """What one round, or one comparison, came to: numbers of tasks.

    Attributes:
        asked: questions about a task.
        found: results that the inbox or the ledger did not have.
        settled: lost answers whose task was found in the history.
        rejected: lost answers that had created nothing.
        failed: questions that the API did not answer, or refused.
        tasks: ids of what was found.
        error: the last failure, in words; None where there was none.
    """

    asked: int = 0
    found: int = 0
    settled: int = 0
    rejected: int = 0
    failed: int = 0
    tasks: list[str] = field(default_factory=list)
    error: str | None = None

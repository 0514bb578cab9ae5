"""Delivery of found results, and the report of a reconcile round.

A result goes to the inbox first, if the process has one, then to the ledger.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from submitter.errors import SubmitterError
from submitter.ledger.base import Entry, Ledger, Result
from submitter.prediction import JSON, Prediction, Status


@dataclass(frozen=True, slots=True)
class FoundResult:
    """A result that the API returned for an unfinished task.

    Attributes:
        prediction: terminal.
        context: of the submission, if the ledger has it.
        key: of the submission; None if the ledger does not know the task.
    """

    prediction: Prediction
    context: JSON = field(default=None, repr=False)
    key: str | None = None


DeliverResult = Callable[[FoundResult], Awaitable[bool]]
"""Passes a result to the inbox; True if it was new there."""

FindInInbox = Callable[[Sequence[str]], Awaitable[Mapping[str, Prediction]]]
"""Returns the results that the inbox already has, by task id."""


@dataclass(frozen=True, slots=True)
class ReconcileEvent:
    """One step of a reconciler.

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
    """Report of one round or one comparison with the history: numbers of tasks.

    Attributes:
        asked: queries for one task.
        found: results that the inbox or the ledger did not have.
        settled: submits without a response whose task was found in the history.
        rejected: submits without a response that had created nothing.
        failed: queries that the API refused or did not answer.
        tasks: ids of the found tasks.
        error: text of the last failure, if any.
    """

    asked: int = 0
    found: int = 0
    settled: int = 0
    rejected: int = 0
    failed: int = 0
    tasks: list[str] = field(default_factory=list)
    error: str | None = None


class ResultDelivery:
    """Delivers results to the inbox and the ledger, one by one.

    Args:
        ledger: open.
        deliver: passes results to the inbox; None if this process has no inbox.
        tell: called with each step.
        clock: Unix seconds.
    """

    def __init__(
        self,
        ledger: Ledger,
        deliver: DeliverResult | None,
        *,
        tell: Callable[[ReconcileEvent], None],
        clock: Callable[[], float],
    ) -> None:
        self.to_inbox = deliver is not None
        self._ledger = ledger
        self._deliver = deliver
        self._tell = tell
        self._clock = clock

    async def end(
        self, prediction: Prediction, entry: Entry | None, report: ReconcileReport
    ) -> bool:
        """Deliver one result; False if the inbox failed to take it, so that it can be retried.

        Raises:
            LedgerUnavailable: the ledger did not take it.
        """
        key, context = (entry.key, entry.context) if entry else (None, None)
        # A submit without a webhook wants no event, and a deleted task has none.
        unwanted = (entry is not None and not entry.webhook) or prediction.status == Status.DELETED
        new = False
        if self._deliver is not None and not unwanted:
            try:
                new = await self._deliver(FoundResult(prediction, context, key))
            except Exception as error:  # noqa: BLE001 - one result must not hold up the others
                self.count(error, report)
                return False
        result = Result(prediction, key, delivered=unwanted or self.to_inbox)
        finished = await self._ledger.finish([result], self._clock())
        if new or finished:
            report.found += 1
            report.tasks.append(prediction.id)
            self._tell(ReconcileEvent("reconcile.found", prediction.id, key))
        return True

    def count(self, error: Exception, report: ReconcileReport) -> None:
        """Count a failure, and tell of it."""
        report.failed += 1
        report.error = error_text(error)
        self._tell(ReconcileEvent("reconcile.failed", error=report.error))


def has_ended(prediction: Prediction) -> bool:
    """True if the task has ended or was deleted."""
    return prediction.terminal or prediction.status == Status.DELETED


def error_text(error: Exception) -> str:
    """Text of an error for logs; only the class of a foreign one, whose text may quote an input."""
    return str(error) if isinstance(error, SubmitterError) else type(error).__name__

"""Delivery of found results: to the inbox, if the process has one, then to the ledger."""

from __future__ import annotations

from collections.abc import Callable

from submitter.errors import SubmitterError
from submitter.ledger.base import Entry, Ledger, Result
from submitter.prediction import Prediction, Status
from submitter.reconcile.report import DeliverResult, FoundResult, ReconcileEvent, ReconcileReport


class ResultDelivery:
    """Ends submissions, one by one.

    Args:
        ledger: open.
        deliver: hands results to the inbox; None where there is none here.
        tell: told what happens.
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
        """Bring one result; False where the inbox did not take it, which may be tried again.

        Raises:
            LedgerUnavailable: the ledger did not take it.
        """
        key, context = (entry.key, entry.context) if entry else (None, None)
        # Whoever asked for no webhook wants no event, and of a task that is gone there is none.
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

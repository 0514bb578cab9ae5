"""A submitted task, as `WaveSpeed.submit` returns it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from submitter.ledger.base import Entry
from submitter.prediction import Prediction


class WaitForResult(Protocol):
    """Function that waits for the result of a submission."""

    async def __call__(self, key: str, timeout: float | None) -> Prediction:
        """As `Submission.result`."""
        ...


@dataclass(frozen=True, slots=True)
class Submission:
    """A task that was submitted once; a submit with the same key returns the same one.

    Attributes:
        entry: its ledger entry at the time of the submit.
        prediction: the task in the API's response; None if the response is not known.
    """

    entry: Entry
    prediction: Prediction | None
    _wait: WaitForResult = field(repr=False)

    @property
    def key(self) -> str:
        """The idempotency key."""
        return self.entry.key

    @property
    def model(self) -> str:
        """The model's id."""
        return self.entry.model

    @property
    def task_id(self) -> str | None:
        """The API's id of the task, once it is known."""
        return self.entry.task_id

    async def result(self, timeout: float | None = None) -> Prediction:
        """Wait until the task has ended; a failed task does not raise.

        An earlier result is returned at once. Cancelling the wait loses nothing.

        Args:
            timeout: seconds; at their end the API is asked once. None: no limit.

        Raises:
            StillRunning: the timeout is over and the task has not ended.
            Unavailable: the submission turned out to have created nothing.
            ApiError: the API refused the question at the end.
            LedgerUnavailable: the ledger cannot be read.
        """
        return await self._wait(self.key, timeout)

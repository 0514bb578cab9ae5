"""One submission, as its submitter holds it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from submitter.ledger.base import Entry
from submitter.prediction import Prediction


class WaitForResult(Protocol):
    """Waits for the result of a submission."""

    async def __call__(self, key: str, timeout: float | None) -> Prediction:
        """See `Submission.result`."""
        ...


@dataclass(frozen=True, slots=True)
class Submission:
    """A task that was paid for once, whoever asks for it again under its key.

    Attributes:
        entry: what the ledger had of it when this was made.
        prediction: the task as the API described it then; None where its answer is not known.
    """

    entry: Entry
    prediction: Prediction | None
    _wait: WaitForResult = field(repr=False)

    @property
    def key(self) -> str:
        """Unique to it; the ledger finds it by this."""
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
        """Wait until the task has ended; a failed one is an answer, no error.

        A result that came before the wait began is there at once. Whoever cancels loses nothing.

        Args:
            timeout: seconds. At their end the API is asked once. None waits as long as it takes.

        Raises:
            StillRunning: the time is over and the task has not ended.
            Unavailable: the submission turned out to have created nothing.
            ApiError: the API refused the question at the end.
            LedgerUnavailable: nothing can be read now.
        """
        return await self._wait(self.key, timeout)

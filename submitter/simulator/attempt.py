"""What is kept of each attempt at a webhook."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from submitter.prediction import JSON


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at a webhook, or its absence.

    Attributes:
        task: the task's id.
        number: from 1; 0 where the webhook was dropped on purpose.
        at: Unix seconds.
        to: the receiver's origin; its path may hold a secret token and is not kept.
        status: of the receiver's answer.
        error: why there was no answer.
        faults: what was wrong with it on purpose.
    """

    task: str
    number: int
    at: float
    to: str
    status: int | None = None
    error: str | None = None
    faults: tuple[str, ...] = ()

    @property
    def accepted(self) -> bool:
        """Whether the receiver answered 2xx."""
        return self.status is not None and 200 <= self.status < 300

    def as_json(self) -> dict[str, JSON]:
        """For the simulator's own log endpoint."""
        return {**asdict(self), "faults": list(self.faults)}

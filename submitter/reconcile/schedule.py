"""When to ask the API: pure values, all derived from one number.

A webhook brings the result; asking is for where none comes. So the first question waits until the
result is overdue, and the distance between questions grows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from submitter.settings import DEFAULT_OVERDUE_S

API_RETENTION_S = 7 * 86400.0
"""Seconds for which the API keeps a task."""

MIN_DURATIONS = 20
"""Finished tasks of a model from which its own times count."""

HISTORY_LOOK_DELAYS_S = (5.0, 15.0, 30.0, 60.0)
"""Seconds before each look for a lost submission in the history, at the default `overdue`.

The history may lag behind, so that a task which it does not name once may exist all the same.
"""


@dataclass(frozen=True, slots=True)
class Schedule:
    """The waits.

    Attributes:
        overdue: seconds after which a result is overdue whose model has no history yet; all other
            waits are in proportion to it.
    """

    overdue: float = DEFAULT_OVERDUE_S

    def expected(self, durations: Sequence[float], *, webhook: bool) -> float:
        """Seconds from acceptance until the first question.

        Args:
            durations: seconds that the model's latest tasks took.
            webhook: whether one was asked for: then the slowest of a hundred tasks, and a margin
                for the webhook's own way; else half of the tasks have ended by then.
        """
        known = sorted(durations) if len(durations) >= MIN_DURATIONS else []
        if not webhook:
            return max(known[len(known) // 2], self.soon) if known else self.soon
        if not known:
            return self.overdue
        return known[min(len(known) - 1, math.ceil(len(known) * 0.99))] * 1.25 + 2 * self.soon

    def again(self, asks: int, *, webhook: bool, random: Callable[[], float]) -> float:
        """Seconds until the next question about a task that has not ended.

        Args:
            asks: how often it was asked before.
            webhook: whether one may still come; without, the API's own advice holds: 5 s and
                growing.
            random: a number from 0 to 1, so that many do not ask in one moment.
        """
        first, growth, most = (6 * self.soon, 2.0, 720 * self.soon)
        if not webhook:
            first, growth, most = (self.soon, 1.5, 12 * self.soon)
        wait = min(first * growth ** min(asks, 64), most)
        return wait * (0.75 + 0.5 * random())

    def look(self, looks: int) -> float | None:
        """Seconds from one look into the history to the next; None: that was the last.

        Args:
            looks: how many there were; 0: since the answer was lost.
        """
        return (
            HISTORY_LOOK_DELAYS_S[looks] * self.overdue / DEFAULT_OVERDUE_S
            if looks < len(HISTORY_LOOK_DELAYS_S)
            else None
        )

    def pause(self, refusals: int, random: Callable[[], float]) -> float:
        """Seconds in which nobody submits after so many 429 in a row that name no time."""
        return min(self.soon * 2.0 ** min(refusals, 64), 24 * self.soon) * (0.75 + 0.5 * random())

    @property
    def soon(self) -> float:
        """The shortest wait, in seconds: a sixtieth of `overdue`."""
        return self.overdue / 60

    @property
    def tick(self) -> float:
        """Seconds between two looks into the ledger, which cost the API nothing."""
        return min(max(self.soon, 0.02), 5.0)

    @property
    def hold(self) -> float:
        """Seconds that an asker has an entry for itself."""
        return max(self.overdue / 2, 5.0)

    @property
    def skew(self) -> float:
        """Seconds by which our clock and the API's may differ."""
        return self.overdue * 0.4

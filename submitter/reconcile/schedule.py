"""Schedule of queries to the API: pure values, all derived from one number.

Results arrive by webhook; a query is for a missing one. So the first query waits until the result
is overdue, and the intervals grow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from submitter.settings import DEFAULT_OVERDUE_S

API_RETENTION_S = 7 * 86400.0
"""Seconds for which the API keeps a task."""

MIN_DURATIONS = 20
"""Finished tasks of a model after which its own durations are used."""

HISTORY_LOOK_DELAYS_S = (5.0, 15.0, 30.0, 60.0)
"""Seconds before each look for a lost submission in the history, at the default `overdue`.

The history lags, so a task that is missing in one look may still exist.
"""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Waiting times of the reconciler.

    Attributes:
        overdue: seconds after which a result is overdue if its model has no durations yet; all
            other times are in proportion to it.
    """

    overdue: float = DEFAULT_OVERDUE_S

    def expected(self, durations: Sequence[float], *, webhook: bool) -> float:
        """Seconds from acceptance to the first query.

        Args:
            durations: seconds of the model's latest tasks.
            webhook: True uses the 99th percentile of the durations and a margin for the webhook;
                False uses their median.
        """
        known = sorted(durations) if len(durations) >= MIN_DURATIONS else []
        if not webhook:
            return max(known[len(known) // 2], self.soon) if known else self.soon
        if not known:
            return self.overdue
        return known[min(len(known) - 1, math.ceil(len(known) * 0.99))] * 1.25 + 2 * self.soon

    def again(self, asks: int, *, webhook: bool, random: Callable[[], float]) -> float:
        """Seconds to the next query of an unfinished task.

        Args:
            asks: number of queries so far.
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
            looks: number of looks so far; 0: since the response was lost.
        """
        return (
            HISTORY_LOOK_DELAYS_S[looks] * self.overdue / DEFAULT_OVERDUE_S
            if looks < len(HISTORY_LOOK_DELAYS_S)
            else None
        )

    def pause(self, refusals: int, random: Callable[[], float]) -> float:
        """Seconds without a submit after this many 429 in a row without a `Retry-After`."""
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

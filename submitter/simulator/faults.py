"""What goes wrong on purpose: the words of `--faults`, and seeded decisions.

`duplicate=0.1,drop=0.05` gives each fault its probability for a task; a bare name means always;
`all` means every fault, at 0.1 unless a number says otherwise. Later words go over earlier ones:
`all=0.2,drop=0`.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

ALL = "all"
ALL_RATE = 0.1


class Fault(enum.StrEnum):
    """One thing that can go wrong."""

    #: The webhook is sent again after it was accepted.
    DUPLICATE = "duplicate"
    #: The webhook comes 30 seconds of life late.
    DELAY = "delay"
    #: The webhook waits until another task's has gone first.
    REORDER = "reorder"
    #: The webhook is never sent.
    DROP = "drop"
    #: The first attempt carries a wrong signature; the retries carry the right one.
    BAD_SIGNATURE = "bad-signature"
    #: Every attempt carries a time 10 minutes ago, rightly signed.
    STALE = "stale"
    #: The submit's answer comes 20 seconds of life late.
    SLOW_ANSWER = "slow-answer"
    #: The webhook comes before the submit's answer.
    EARLY_WEBHOOK = "early-webhook"


class FaultsError(ValueError):
    """The words of `--faults` cannot be understood; the text says what is known."""


@dataclass(frozen=True, slots=True)
class Faults:
    """How often each fault happens.

    Attributes:
        rates: probability by fault, from 0 to 1; a fault that is not named never happens.
        seed: the same seed gives the same faults to the same tasks, in order of submission.
    """

    rates: Mapping[Fault, float] = field(default_factory=dict)
    seed: int = 0

    @classmethod
    def parse(cls, text: str, seed: int = 0) -> Faults:
        """Read the words of `--faults`.

        Raises:
            FaultsError: an unknown name, or a probability that is none.
        """
        rates: dict[Fault, float] = {}
        for word in filter(None, (word.strip() for word in text.split(","))):
            name, equals, number = (part.strip() for part in word.partition("="))
            rate = _rate(name, number) if equals else (ALL_RATE if name == ALL else 1.0)
            if name == ALL:
                rates.update(dict.fromkeys(Fault, rate))
            else:
                rates[_fault(name)] = rate
        return cls(rates, seed)

    def hits(self, fault: Fault, number: int) -> bool:
        """Whether a fault happens to a task, whatever the order in which tasks end.

        Args:
            fault: which.
            number: the task's, in order of submission.
        """
        rate = self.rates.get(fault, 0.0)
        digest = hashlib.sha256(f"{self.seed}:{fault}:{number}".encode()).digest()
        return int.from_bytes(digest[:8]) / 2**64 < rate


def _fault(name: str) -> Fault:
    try:
        return Fault(name)
    except ValueError:
        known = ", ".join(Fault)
        raise FaultsError(f"Unknown fault {name!r}. Known are: {known}; or {ALL}.") from None


def _rate(name: str, text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = -1.0
    # NaN is in no range.
    if 0.0 <= rate <= 1.0:
        return rate
    raise FaultsError(f"{name}={text!r}: the probability must be a number from 0 to 1.")

"""What goes wrong on purpose: the words of `--faults`, and seeded decisions.

`duplicate=0.1,drop=0.05` gives each fault its probability; a bare name means always; `all` means
every fault, at 0.1 unless a number says otherwise. Later words go over earlier ones:
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
    #: The webhook comes before the submit's answer.
    EARLY_WEBHOOK = "early-webhook"

    #: The connection of a submit is closed before anything was created.
    LOST_REQUEST = "lost-request"
    #: The submit created the task, and the connection is closed without an answer.
    LOST_ANSWER = "lost-answer"
    #: The submit created the task, and the connection is reset (RST).
    RESET = "reset"

    #: The call is answered 429, every second time with Retry-After; nothing was created.
    RATE_LIMIT = "rate-limit"
    #: The call is answered 500, with the API's kinds of bodies by turns; every second submit that
    #: is answered so has created its task.
    ERROR_500 = "error-500"
    #: The call is answered 502 with HTML; every second submit that is answered so has created its
    #: task.
    ERROR_502 = "error-502"
    #: The call's answer comes 20 seconds of life late.
    SLOW_ANSWER = "slow-answer"

    #: A history answer leaves out a task that it should hold; the next query may hold it.
    MISSING_HISTORY = "missing-history"
    #: `has_nsfw_contents` of a completed task is null.
    NULL_NSFW = "null-nsfw"
    #: Outputs are objects with a `url`, not texts.
    OBJECT_OUTPUTS = "object-outputs"
    #: A task that has not ended has a status that nobody knows.
    UNKNOWN_STATUS = "unknown-status"
    #: A prediction has nothing but `id`, `status` and, once completed, `outputs`; in the history,
    #: every second such item lacks its input only.
    MISSING_FIELDS = "missing-fields"


GROUPS: Mapping[str, tuple[Fault, ...]] = {
    "of each task's webhook": (
        Fault.DUPLICATE,
        Fault.DELAY,
        Fault.REORDER,
        Fault.DROP,
        Fault.BAD_SIGNATURE,
        Fault.STALE,
        Fault.EARLY_WEBHOOK,
    ),
    "of each submit": (Fault.LOST_REQUEST, Fault.LOST_ANSWER, Fault.RESET),
    "of each call": (Fault.RATE_LIMIT, Fault.ERROR_500, Fault.ERROR_502, Fault.SLOW_ANSWER),
    "of what answers hold": (
        Fault.MISSING_HISTORY,
        Fault.NULL_NSFW,
        Fault.OBJECT_OUTPUTS,
        Fault.UNKNOWN_STATUS,
        Fault.MISSING_FIELDS,
    ),
}
"""All faults, by what they are decided for."""


class FaultsError(ValueError):
    """The words of `--faults` cannot be understood; the text says what is known."""


@dataclass(frozen=True, slots=True)
class Faults:
    """How often each fault happens.

    Attributes:
        rates: probability by fault, from 0 to 1; a fault that is not named never happens.
        seed: the same seed gives the same faults to the same tasks and calls, in their order.
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

    def hits(self, fault: Fault, *key: str | int) -> bool:
        """Whether a fault happens, whatever happened before.

        Args:
            fault: which.
            *key: what it may happen to: the number of a task, in order of submission; or a call's
                kind and its number among those, and for an item of a history its task's too.
        """
        rate = self.rates.get(fault, 0.0)
        if not rate:
            return False
        text = ":".join(map(str, (self.seed, fault, *key)))
        digest = hashlib.sha256(text.encode()).digest()
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

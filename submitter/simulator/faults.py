"""What goes wrong on purpose: the words of `--faults`, and seeded decisions.

`duplicate=0.1,drop=0.05` gives each fault its probability; a bare name means always; `all` means
every fault, at 0.1 unless a number says otherwise. Later words go over earlier ones:
`all=0.2,drop=0`.

The faults that are in force, which may be exchanged while the simulator runs.

The calls that the simulator tells apart and counts.
"""

from __future__ import annotations

import enum
import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

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


class Kind(enum.StrEnum):
    """What a call asks for."""

    #: A new task.
    SUBMIT = "submit"
    #: How one task stands.
    RESULT = "result"
    #: Pages of past tasks.
    HISTORY = "history"
    #: Tasks to be forgotten.
    DELETE = "delete"
    #: The catalogue.
    MODELS = "models"
    #: What a task would cost.
    PRICE = "price"
    #: What is left on the account.
    BALANCE = "balance"
    #: A place to put a file.
    UPLOAD = "upload"
    #: The bytes of a file.
    PUT = "put"
    #: What webhooks are signed with.
    SECRET = "secret"  # noqa: S105 - a name


class Call(NamedTuple):
    """One call that came.

    Attributes:
        kind: what it asks for.
        number: from 0, among the calls of its kind, refused ones too.
    """

    kind: Kind
    number: int


class Calls:
    """Counts calls as they come."""

    def __init__(self) -> None:
        self._counts: Counter[Kind] = Counter()

    def received(self, kind: Kind) -> Call:
        """Number a call."""
        number = self._counts[kind]
        self._counts[kind] += 1
        return Call(kind, number)

    def counts(self) -> dict[str, int]:
        """How many of each kind came."""
        return {kind.value: self._counts[kind] for kind in Kind}


_EVERYWHERE = (Fault.RATE_LIMIT, Fault.ERROR_500, Fault.ERROR_502)
_ON_SUBMIT = (Fault.LOST_REQUEST, Fault.LOST_ANSWER, Fault.RESET)
_BY_TURNS = (Fault.ERROR_500, Fault.ERROR_502)


@dataclass(frozen=True, slots=True)
class Strike:
    """What spoils one call.

    Attributes:
        fault: which.
        turn: from 0, how often this fault has struck calls of this kind before.
        late: the call has its effect all the same.
    """

    fault: Fault
    turn: int
    late: bool


@dataclass(slots=True)
class Plan:
    """Decides what goes wrong.

    Attributes:
        faults: may be exchanged at any time.
    """

    faults: Faults
    _turns: Counter[tuple[Fault, Kind]] = field(default_factory=Counter)

    def hits(self, fault: Fault, *key: str | int) -> bool:
        """See `Faults.hits`."""
        return self.faults.hits(fault, *key)

    def strike(self, call: Call) -> Strike | None:
        """What spoils a call, if anything; of several faults that hit it, the first one does."""
        faults = (*_ON_SUBMIT, *_EVERYWHERE) if call.kind is Kind.SUBMIT else _EVERYWHERE
        fault = next((fault for fault in faults if self.hits(fault, *call)), None)
        if fault is None:
            return None
        turn = self._turns[fault, call.kind]
        self._turns[fault, call.kind] += 1
        late = fault in (Fault.LOST_ANSWER, Fault.RESET) or (
            call.kind is Kind.SUBMIT and fault in _BY_TURNS and turn % 2 == 1
        )
        return Strike(fault, turn, late)

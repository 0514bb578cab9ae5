"""Fault injection: the syntax of `--faults`, and seeded decisions.

`duplicate=0.1,drop=0.05` sets the probability of each fault. A bare name means always. `all` means
every fault, with probability 0.1 or the one given. Later entries override earlier ones:
`all=0.2,drop=0`.
"""

from __future__ import annotations

import enum
import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

ALL = "all"

DEFAULT_RATE_OF_ALL = 0.1
"""Probability of each fault for a bare `all`."""


class FaultKind(enum.StrEnum):
    """A fault of a webhook, a call or a response."""

    #: The webhook is sent again after it was accepted.
    DUPLICATE = "duplicate"
    #: The webhook is sent 30 simulated seconds late.
    DELAY = "delay"
    #: The webhook is sent after the webhook of another task.
    REORDER = "reorder"
    #: The webhook is never sent.
    DROP = "drop"
    #: The first attempt carries a wrong signature; the retries carry the right one.
    BAD_SIGNATURE = "bad-signature"
    #: Every attempt has a valid signature over a timestamp 10 minutes old.
    STALE = "stale"
    #: The webhook is sent before the response to the submit.
    EARLY_WEBHOOK = "early-webhook"

    #: The connection of a submit is closed, and no task is created.
    LOST_REQUEST = "lost-request"
    #: The submit creates its task, and the connection is closed without a response.
    LOST_ANSWER = "lost-answer"
    #: The submit creates its task, and the connection is reset (RST).
    RESET = "reset"

    #: The response is 429, every second time with Retry-After; no task is created.
    RATE_LIMIT = "rate-limit"
    #: The response is 500, with the API's error shapes in turn; every second such submit creates
    #: its task.
    ERROR_500 = "error-500"
    #: The response is 502 with HTML; every second such submit creates its task.
    ERROR_502 = "error-502"
    #: The response is 20 simulated seconds late.
    SLOW_ANSWER = "slow-answer"

    #: A history response lacks one of its tasks; the next response may have it.
    MISSING_HISTORY = "missing-history"
    #: `has_nsfw_contents` of a completed task is null.
    NULL_NSFW = "null-nsfw"
    #: Outputs are objects with a `url`, not strings.
    OBJECT_OUTPUTS = "object-outputs"
    #: An unfinished task has an undocumented status.
    UNKNOWN_STATUS = "unknown-status"
    #: A prediction has only `id`, `status` and, if completed, `outputs`; in the history, every
    #: second such item lacks its input only.
    MISSING_FIELDS = "missing-fields"


GROUPS: Mapping[str, tuple[FaultKind, ...]] = {
    "of each task's webhook": (
        FaultKind.DUPLICATE,
        FaultKind.DELAY,
        FaultKind.REORDER,
        FaultKind.DROP,
        FaultKind.BAD_SIGNATURE,
        FaultKind.STALE,
        FaultKind.EARLY_WEBHOOK,
    ),
    "of each submit": (FaultKind.LOST_REQUEST, FaultKind.LOST_ANSWER, FaultKind.RESET),
    "of each call": (
        FaultKind.RATE_LIMIT,
        FaultKind.ERROR_500,
        FaultKind.ERROR_502,
        FaultKind.SLOW_ANSWER,
    ),
    "of each response's content": (
        FaultKind.MISSING_HISTORY,
        FaultKind.NULL_NSFW,
        FaultKind.OBJECT_OUTPUTS,
        FaultKind.UNKNOWN_STATUS,
        FaultKind.MISSING_FIELDS,
    ),
}
"""All faults, by what each is decided for."""


class FaultsError(ValueError):
    """`--faults` is not valid; the text names the entry and what was expected."""


@dataclass(frozen=True, slots=True)
class Faults:
    """Probabilities of the faults.

    Attributes:
        rates: probability from 0 to 1 by fault; a missing fault is never injected.
        seed: the same seed gives the same faults to the same tasks and calls, in their order.
    """

    rates: Mapping[FaultKind, float] = field(default_factory=dict)
    seed: int = 0

    @classmethod
    def parse(cls, text: str, seed: int = 0) -> Faults:
        """Parse `--faults`.

        Raises:
            FaultsError: an unknown name, or a probability outside 0 to 1.
        """
        rates: dict[FaultKind, float] = {}
        for entry in filter(None, (entry.strip() for entry in text.split(","))):
            name, equals, number = (part.strip() for part in entry.partition("="))
            rate = _rate(name, number) if equals else (DEFAULT_RATE_OF_ALL if name == ALL else 1.0)
            if name == ALL:
                rates.update(dict.fromkeys(FaultKind, rate))
            else:
                rates[_fault(name)] = rate
        return cls(rates, seed)

    def hits(self, fault: FaultKind, *key: str | int) -> bool:
        """Decide if a fault is injected; independent of all other decisions.

        Args:
            fault: the fault.
            *key: the target: the number of a task in order of submission; or the kind of a call
                and its number among those of the kind, and for an item of a history also the
                number of its task.
        """
        rate = self.rates.get(fault, 0.0)
        if not rate:
            return False
        text = ":".join(map(str, (self.seed, fault, *key)))
        digest = hashlib.sha256(text.encode()).digest()
        return int.from_bytes(digest[:8]) / 2**64 < rate


def _fault(name: str) -> FaultKind:
    try:
        return FaultKind(name)
    except ValueError:
        known = ", ".join(FaultKind)
        raise FaultsError(f"Unknown fault {name!r}. Use {ALL}, or some of: {known}.") from None


def _rate(name: str, text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = -1.0
    # False for NaN, too.
    if 0.0 <= rate <= 1.0:
        return rate
    raise FaultsError(
        f"{name}={text}: the probability must be a number from 0 to 1, such as {name}=0.2."
    )


class CallKind(enum.StrEnum):
    """Kind of an API call."""

    #: A new task.
    SUBMIT = "submit"
    #: The state and outputs of one task.
    RESULT = "result"
    #: Pages of past tasks.
    HISTORY = "history"
    #: Deletion of tasks.
    DELETE = "delete"
    #: The catalogue of models.
    MODELS = "models"
    #: The price of a task.
    PRICE = "price"
    #: The balance of the account.
    BALANCE = "balance"
    #: A presigned URL for a file.
    UPLOAD = "upload"
    #: The bytes of a file.
    PUT = "put"
    #: The secret of the webhooks.
    SECRET = "secret"  # noqa: S105 - a name


class Call(NamedTuple):
    """One API call.

    Attributes:
        kind: its kind.
        number: from 0 among the calls of its kind, refused ones included.
    """

    kind: CallKind
    number: int


class CallCounter:
    """Counts API calls by kind."""

    def __init__(self) -> None:
        self._counts: Counter[CallKind] = Counter()

    def add(self, kind: CallKind) -> Call:
        """Count a call, and give it its number."""
        number = self._counts[kind]
        self._counts[kind] += 1
        return Call(kind, number)

    def counts(self) -> dict[str, int]:
        """Number of calls by kind."""
        return {kind.value: self._counts[kind] for kind in CallKind}


_FAULTS_OF_CALLS = (FaultKind.RATE_LIMIT, FaultKind.ERROR_500, FaultKind.ERROR_502)
_FAULTS_OF_SUBMITS = (FaultKind.LOST_REQUEST, FaultKind.LOST_ANSWER, FaultKind.RESET)
_EVERY_SECOND_TAKES_EFFECT = (FaultKind.ERROR_500, FaultKind.ERROR_502)


@dataclass(frozen=True, slots=True)
class InjectedFault:
    """The fault of one call.

    Attributes:
        fault: the fault.
        turn: from 0; number of earlier calls of this kind with this fault.
        takes_effect: the call still has its effect, such as a new task.
    """

    fault: FaultKind
    turn: int
    takes_effect: bool


@dataclass(slots=True)
class FaultInjector:
    """Decides on the faults of tasks and calls.

    Attributes:
        faults: probabilities; they may be replaced at any time.
    """

    faults: Faults
    _turns: Counter[tuple[FaultKind, CallKind]] = field(default_factory=Counter)

    def hits(self, fault: FaultKind, *key: str | int) -> bool:
        """Decide if a fault is injected; the arguments are those of `Faults.hits`."""
        return self.faults.hits(fault, *key)

    def inject(self, call: Call) -> InjectedFault | None:
        """Choose the fault of a call: the first of those that are decided for it."""
        faults: tuple[FaultKind, ...] = _FAULTS_OF_CALLS
        if call.kind is CallKind.SUBMIT:
            faults = (*_FAULTS_OF_SUBMITS, *faults)
        fault = next((fault for fault in faults if self.hits(fault, *call)), None)
        if fault is None:
            return None
        turn = self._turns[fault, call.kind]
        self._turns[fault, call.kind] += 1
        takes_effect = fault in (FaultKind.LOST_ANSWER, FaultKind.RESET) or (
            call.kind is CallKind.SUBMIT and fault in _EVERY_SECOND_TAKES_EFFECT and turn % 2 == 1
        )
        return InjectedFault(fault, turn, takes_effect)

"""The faults that are in force, which may be exchanged while the simulator runs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from submitter.simulator.calls import Call, Kind
from submitter.simulator.faults import Fault, Faults

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

"""A WaveSpeedAI look-alike and its webhook sender, with faults on demand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from submitter.simulator.faults import Fault, Faults, FaultsError

if TYPE_CHECKING:
    from submitter.simulator.service import Simulator

__all__ = ["Fault", "Faults", "FaultsError", "Simulator"]


def __getattr__(name: str) -> object:
    """Import the servers only for whoever runs one: the command line reads this package too."""
    if name == "Simulator":
        from submitter.simulator.service import Simulator

        return Simulator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

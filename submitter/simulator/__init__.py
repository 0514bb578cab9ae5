"""Simulator of the WaveSpeedAI API and its webhooks, with faults on demand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from submitter.simulator.faults import FaultKind, Faults, FaultsError

if TYPE_CHECKING:
    from submitter.simulator.service import Simulator

__all__ = ["FaultKind", "Faults", "FaultsError", "Simulator"]


def __getattr__(name: str) -> object:
    """Import `Simulator` on first use: the command line imports this package without a server."""
    if name == "Simulator":
        from submitter.simulator.service import Simulator

        return Simulator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

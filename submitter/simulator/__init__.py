"""A WaveSpeedAI look-alike and its webhook sender, with faults on demand."""

from __future__ import annotations

from submitter.simulator.faults import Fault, Faults, FaultsError
from submitter.simulator.service import Simulator

__all__ = ["Fault", "Faults", "FaultsError", "Simulator"]

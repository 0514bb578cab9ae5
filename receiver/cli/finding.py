"""What one look of `wavehook check` came to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look came to.

    Attributes:
        about: what was looked at.
        found: what there is.
        todo: what to do; None where all is well.
    """

    about: str
    found: str
    todo: str | None = None

"""Settings from flags, the environment and `wavehook.toml`.

Begin with `settings`, the table; `load` reads it from all three, `source` has the sections of
`[sources.NAME]`, and `platform` names serverless platforms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from receiver.config.load import Reading, load, read
from receiver.config.settings import REFERENCE, Secret, Settings

if TYPE_CHECKING:
    from receiver.config.source import SourceSettings

__all__ = [
    "REFERENCE",
    "Reading",
    "Secret",
    "Settings",
    "SourceSettings",
    "load",
    "read",
]


def __getattr__(name: str) -> object:
    """Import pydantic only when `SourceSettings` is asked for."""
    if name == "SourceSettings":
        from receiver.config.source import SourceSettings

        return SourceSettings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

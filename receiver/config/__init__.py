"""Settings from flags, the environment and `wavehook.toml`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from receiver.config.load import Reading, load, read
from receiver.config.settings import REFERENCE, Setting, Settings

if TYPE_CHECKING:
    from receiver.config.source import SourceSettings

__all__ = [
    "REFERENCE",
    "Reading",
    "Setting",
    "Settings",
    "SourceSettings",
    "load",
    "read",
]


def __getattr__(name: str) -> object:
    """Import what needs pydantic when it is first asked for."""
    if name == "SourceSettings":
        from receiver.config.source import SourceSettings

        return SourceSettings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

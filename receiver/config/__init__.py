"""Settings from flags, the environment and `wavehook.toml`."""

from __future__ import annotations

from receiver.config.model import REFERENCE, Setting, Settings
from receiver.config.reading import Reading, load, read
from receiver.config.source import WAVESPEED, SourceSettings

__all__ = [
    "REFERENCE",
    "WAVESPEED",
    "Reading",
    "Setting",
    "Settings",
    "SourceSettings",
    "load",
    "read",
]

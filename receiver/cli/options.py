"""Flags that stand for settings: each is named like its environment variable, and beats it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from receiver.config import REFERENCE, Reading, Settings, read
from receiver.errors import SettingsError
from receiver.telemetry.log import configure

_BY_FIELD = {setting.field: setting for setting in REFERENCE}


def option(field: str) -> Any:
    """The flag of one setting; its value is read and checked with all others."""
    setting = _BY_FIELD[field]
    return typer.Option(
        setting.flag,
        help=f"{setting.meaning[0].upper()}{setting.meaning[1:]}. "
        f"{setting.name}, default: {setting.default}",
        metavar="FILE" if field == "config" else setting.key.upper(),
        show_default=False,
    )


Config = Annotated[str | None, option("config")]
Database = Annotated[str | None, option("database")]
Schema = Annotated[str | None, option("database_schema")]
Pooler = Annotated[str | None, option("database_pooler")]
Modules = Annotated[str | None, option("modules")]
LogLevel = Annotated[str | None, option("log_level")]
Grace = Annotated[str | None, option("grace")]
Lease = Annotated[str | None, option("lease")]
Overdue = Annotated[str | None, option("overdue")]
AsJson = Annotated[
    bool, typer.Option("--json", help="One JSON object a line on standard output, nothing else.")
]


def reading(**flags: str | None) -> Reading:
    """Read the settings with these flags, by field, and send the log to standard error."""
    overrides = {_BY_FIELD[field].name: value for field, value in flags.items()}
    found = read(os.environ, overrides=overrides, cwd=Path.cwd())
    configure(level=found.settings.log_level)
    return found


def settings(**flags: str | None) -> Settings:
    """As `reading`.

    Raises:
        SettingsError: with every fault.
    """
    found = reading(**flags)
    if found.faults:
        raise SettingsError(found.faults)
    return found.settings

"""Flags of settings: each is named like its environment variable, and beats it."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from receiver.config import REFERENCE, Reading, Settings, read
from receiver.errors import SettingsError
from receiver.telemetry.log import configure
from submitter.cli.options import JsonLines

__all__ = ["DATABASE", "Flags", "JsonLines", "setting_flags"]

DATABASE = ("database", "database_schema", "database_pooler", "config")
"""The flags of every command that opens the database."""

_BY_FIELD = {setting.field: setting for setting in REFERENCE}


class Flags:
    """The settings flags of one call of a command.

    Args:
        given: the values by field of `Settings`; None for a flag that was not given.
    """

    def __init__(self, **given: str | None) -> None:
        self._given = given

    def reading(self) -> Reading:
        """Read the settings and send the log to standard error; faults are returned."""
        overrides = {_BY_FIELD[field].name: value for field, value in self._given.items()}
        found = read(os.environ, overrides=overrides, cwd=Path.cwd())
        configure(level=found.settings.log_level)
        return found

    def settings(self) -> Settings:
        """Read the settings and send the log to standard error.

        Raises:
            SettingsError: with every fault.
        """
        found = self.reading()
        if found.faults:
            raise SettingsError(found.faults)
        return found.settings


def setting_flags(*fields: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a command: it takes these settings as flags, and gets them as its argument `flags`.

    Args:
        fields: fields of `Settings`; their flags stand after the command's own, in this order.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        # Typer reads the signature; it evaluates no annotations of one that is set by hand.
        signature = inspect.signature(command, eval_str=True)
        own = [each for name, each in signature.parameters.items() if name != "flags"]
        added = [
            inspect.Parameter(
                field,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[str | None, _option(field)],
            )
            for field in fields
        ]

        @wraps(command)
        def wrapper(*args: Any, **given: Any) -> None:
            flags = Flags(**{field: given.pop(field) for field in fields})
            command(*args, flags=flags, **given)

        parameters = [*own, *added]
        wrapper.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {each.name: each.annotation for each in parameters}
        return wrapper

    return decorate


def _option(field: str) -> Any:
    setting = _BY_FIELD[field]
    default = "" if setting.default == "-" else f" [default: {setting.default}]"
    return typer.Option(
        setting.flag,
        help=f"{setting.meaning[0].upper()}{setting.meaning[1:]}. {setting.name}{default}",
        metavar=setting.metavar,
        show_default=False,
    )

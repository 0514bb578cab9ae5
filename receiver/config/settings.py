"""The receiver's settings: one frozen object, and its rows of the settings table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from receiver.config.platform import Platform
from submitter import units
from submitter.settings import (
    BASE_URL,
    MAX_DURATION_S,
    Setting,
    SubmitSettings,
    items,
    one_of,
    rows,
    seconds,
    setting,
    text,
    whole,
    within,
)
from submitter.storage.postgres_pool import is_postgres, server_address

if TYPE_CHECKING:
    from receiver.config.source import SourceSettings

DEFAULT_FILE = "wavehook.toml"

MAX_BODY_BYTES = 256 * 1024**2
"""Bytes; the highest `WAVEHOOK_MAX_BODY`."""


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret among the settings; printing or logging it does not show it."""

    _text: str = field(repr=False)

    def get_secret_value(self) -> str:
        """The secret itself."""
        return self._text


def _shared(name: str, default: object = None) -> Any:
    """A setting that the submitter has too: the same row, and the same default unless given."""
    (base,) = (each for each in fields(SubmitSettings) if each.name == name)
    default = base.default if default is None else default
    return field(default=default, repr=base.repr, metadata=base.metadata)


def _size(value: object) -> int:
    """Parse a number of bytes, such as `512KiB`."""
    try:
        return units.size(value)
    except ValueError:
        raise ValueError from None


def _modules(value: object) -> tuple[str, ...]:
    """Parse dotted names of Python modules."""
    names = items(value)
    if not all(part.isidentifier() for name in names for part in name.split(".")):
        raise ValueError
    return names


@dataclass(frozen=True)
class Settings:
    """All settings, parsed and checked; made by `receiver.config.load`.

    Attributes:
        sources: the `[sources.NAME]` sections.
        handlers: the `[handlers.NAME]` sections, which `receiver.handlers.loading` checks.
        directory: relative paths begin here.
        platform: the serverless platform that the process runs on; None on other machines.
    """

    api_key: Secret | None = _shared("api_key")
    base_url: str = _shared("base_url", BASE_URL)
    database: str = _shared("database")
    database_schema: str = _shared("database_schema")
    database_pooler: bool = _shared("database_pooler")
    wavespeed_secrets: tuple[Secret, ...] = setting(
        (),
        "WAVEHOOK_WAVESPEED_SECRETS",
        "webhook secrets of WaveSpeedAI; a webhook may be signed with any of them",
        "one or more whsec_…, separated by commas",
        items,
        default="fetched with the API key",
        secret=True,
        many=True,
    )
    public_url: str | None = _shared("public_url")
    seal_keys: tuple[Secret, ...] = _shared("seal_keys")
    admin_token: Secret | None = _shared("admin_token")
    config: Path | None = setting(
        None,
        "WAVEHOOK_CONFIG",
        "TOML file with these settings, [handlers.NAME] and [sources.NAME]",
        "the path of a TOML file",
        text,
        default=f"{DEFAULT_FILE} if there",
        metavar="FILE",
    )
    dispatch: Literal["background", "inline", "external"] = setting(
        "background",
        "WAVEHOOK_DISPATCH",
        "when handlers run: background (after the response), inline (before the response, within a "
        "deadline) or external (in `wavehook worker` or `wavehook drain`)",
        "background, inline or external",
        one_of("background", "inline", "external"),
        metavar="MODE",
    )
    max_body: int = setting(
        1024**2,
        "WAVEHOOK_MAX_BODY",
        "largest request body that is accepted, in bytes",
        "a number of bytes from 1 to 256 MiB, such as 1048576 or 1MiB",
        within(_size, 1, MAX_BODY_BYTES),
        default="1MiB",
        metavar="SIZE",
    )
    host: str = setting(
        "127.0.0.1",
        "WAVEHOOK_HOST",
        "address on which `serve` listens",
        "an address or host name",
        text,
        metavar="ADDRESS",
    )
    port: int = setting(
        8080,
        "WAVEHOOK_PORT",
        "port on which `serve` listens; 0 takes a free one",
        "a whole number from 0 to 65535",
        within(whole, 0, 65535),
        metavar="PORT",
    )
    modules: tuple[str, ...] = setting(
        (),
        "WAVEHOOK_HANDLERS",
        "Python modules with decorated handlers, separated by commas",
        "dotted names of Python modules, separated by commas",
        _modules,
        many=True,
        metavar="MODULES",
    )
    body_deadline: float = setting(
        10.0,
        "WAVEHOOK_BODY_DEADLINE",
        "timeout for receiving a request body",
        "a time of more than 0, in seconds or as 10s",
        within(seconds, 0.001, MAX_DURATION_S),
        default="10s",
        metavar="TIME",
    )
    inline_deadline: float = setting(
        20.0,
        "WAVEHOOK_INLINE_DEADLINE",
        "how long the response waits for handlers with inline dispatch",
        "a time of more than 0, in seconds or as 20s",
        within(seconds, 0.001, MAX_DURATION_S),
        default="20s",
        metavar="TIME",
    )
    grace: float = setting(
        10.0,
        "WAVEHOOK_GRACE",
        "how long running handlers may finish at shutdown; then their leases are released",
        "a time, in seconds or as 10s",
        within(seconds, 0, MAX_DURATION_S),
        default="10s",
        metavar="TIME",
    )
    lease: float = setting(
        60.0,
        "WAVEHOOK_LEASE",
        "how long the dispatches of a killed worker stay reserved before another takes them",
        "a time of at least 1s, in seconds or as 60s",
        within(seconds, 1, MAX_DURATION_S),
        default="60s",
        metavar="TIME",
    )
    retention_days: int = setting(
        30,
        "WAVEHOOK_RETENTION_DAYS",
        "age in days from which `purge` removes payloads; deduplication keys stay at least 30 days",
        "a whole number of days from 0 to 36500",
        within(whole, 0, 36500),
        metavar="DAYS",
    )
    log_level: Literal["debug", "info", "warning", "error"] = setting(
        "info",
        "WAVEHOOK_LOG_LEVEL",
        "lowest level of log lines that are written",
        "debug, info, warning or error",
        one_of("debug", "info", "warning", "error"),
        metavar="LEVEL",
    )
    rate: int | None = _shared("rate")
    in_flight: int | None = _shared("in_flight")
    overdue: float = _shared("overdue")
    submit_timeout: float = _shared("submit_timeout")
    reconcile: Literal["on", "off"] = setting(
        "on",
        "WAVEHOOK_RECONCILE",
        "on: `serve` asks the API for results whose webhook did not arrive; needs "
        "WAVESPEED_API_KEY",
        "on or off",
        one_of("on", "off"),
        metavar="on|off",
    )
    sources: Mapping[str, SourceSettings] = field(default_factory=dict)
    handlers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)
    directory: Path = field(default_factory=Path)
    platform: Platform | None = None

    @property
    def key_path(self) -> Path | None:
        """File of the generated seal key, beside the SQLite file; None on PostgreSQL."""
        path = self.database_path
        return None if path is None else path.with_suffix(".key")

    @property
    def database_path(self) -> Path | None:
        """The SQLite file; a relative one begins at `directory`. None on PostgreSQL."""
        if is_postgres(self.database):
            return None
        return self.directory / self.database.removeprefix("sqlite:///")

    @property
    def database_label(self) -> str:
        """The database in logs and messages, without its password."""
        path = self.database_path
        if path is None:
            return f"{server_address(self.database)}, schema {self.database_schema}"
        return str(path)

    def for_submit(self) -> SubmitSettings:
        """The submitter's part of the settings, for its client and its commands."""
        path = self.database_path
        shared = {each.name: _revealed(getattr(self, each.name)) for each in fields(SubmitSettings)}
        if path is not None:
            shared["database"] = f"sqlite:///{path.absolute()}"
        return SubmitSettings(**shared)


def _revealed(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_revealed, value))
    return value.get_secret_value() if isinstance(value, Secret) else value


REFERENCE: Sequence[Setting] = rows(Settings)
"""Every setting, in the order of the reference in the README."""

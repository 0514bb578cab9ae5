"""The settings: one frozen object, and the table of their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from receiver.config import values
from receiver.config.platform import Platform
from receiver.config.secret import Secret
from submitter.postgres import EXPECTED, SCHEMA, is_postgres, place

if TYPE_CHECKING:
    from receiver.config.source import SourceSettings

DEFAULT_FILE = "wavehook.toml"

_MONTH = 30 * 86400.0


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the reference.

    Attributes:
        name: the environment variable.
        meaning: what it is for.
        expected: what a value must be, to stand after "expected".
        read: makes a value of what was written, or raises ValueError; see `receiver.config.values`.
        default: as a person would write it, or what happens without a value.
        secret: its value is never shown.
        many: it takes several values, separated by commas.
        field: its name in `Settings`.
    """

    name: str
    meaning: str
    expected: str
    read: Callable[[object], Any]
    default: str = ""
    secret: bool = False
    many: bool = False
    field: str = ""

    @property
    def section(self) -> str:
        """The section of the TOML file."""
        return self.name.partition("_")[0].lower()

    @property
    def key(self) -> str:
        """The key in that section."""
        return self.name.partition("_")[2].lower()

    @property
    def flag(self) -> str:
        """The flag on the command line, where a command has it."""
        return "--" + self.key.replace("_", "-")


def _set(
    value: object,
    name: str,
    meaning: str,
    expected: str,
    read: Callable[[object], Any],
    *,
    shown: bool = True,
    **more: Any,
) -> Any:
    """A field of `Settings` with its row of the reference; `shown` is whether its repr is.

    These are read at every start, and pydantic alone would make that a third slower.
    """
    setting = Setting(name, meaning, expected, read, **more)
    return field(default=value, repr=shown, metadata={"setting": setting})


@dataclass(frozen=True)
class Settings:
    """All settings, read and checked; `receiver.config.load` makes them."""

    api_key: Secret | None = _set(
        None,
        "WAVESPEED_API_KEY",
        "the key of the WaveSpeedAI account: submits, and fetches the webhook secret",
        "the key as the account page shows it",
        values.secret,
        secret=True,
    )
    base_url: str = _set(
        "https://api.wavespeed.ai",
        "WAVESPEED_BASE_URL",
        "where the WaveSpeedAI API is",
        "an http or https URL, without query",
        values.http_url,
    )
    database: str = _set(
        "sqlite:///wavehook.db",
        "WAVEHOOK_DATABASE",
        "the inbox, and the ledger of submissions",
        f"sqlite:///PATH (from the working directory), sqlite:////PATH (absolute) or {EXPECTED}",
        values.database_url,
        shown=False,
    )
    database_schema: str = _set(
        SCHEMA,
        "WAVEHOOK_DATABASE_SCHEMA",
        "where the tables are on PostgreSQL; made where it is not there",
        "lower-case letters, digits and underscores, at most 48",
        values.schema_name,
    )
    database_pooler: Literal["on", "off"] = _set(
        "off",
        "WAVEHOOK_DATABASE_POOLER",
        "whether a pooler in transaction mode stands before PostgreSQL",
        "on or off",
        values.one_of("on", "off"),
    )
    wavespeed_secrets: tuple[Secret, ...] = _set(
        (),
        "WAVEHOOK_WAVESPEED_SECRETS",
        "webhook secrets of WaveSpeedAI; all are tried",
        "one or more whsec_… with commas between",
        values.secrets,
        default="fetched with the API key",
        secret=True,
        many=True,
    )
    public_url: str | None = _set(
        None,
        "WAVEHOOK_PUBLIC_URL",
        "where the sender reaches this receiver",
        "an http or https URL, without query",
        values.http_url,
    )
    seal_keys: tuple[Secret, ...] = _set(
        (),
        "WAVEHOOK_SEAL_KEYS",
        "Fernet keys that seal the context into webhook URLs, newest first",
        "keys that `wavehook secret --seal-key` makes, with commas between",
        values.secrets,
        default="a generated key file beside the SQLite file",
        secret=True,
        many=True,
    )
    admin_token: Secret | None = _set(
        None,
        "WAVEHOOK_ADMIN_TOKEN",
        "opens /api and the dashboard; without it they do not exist",
        "a long random text",
        values.secret,
        secret=True,
    )
    config: Path | None = _set(
        None,
        "WAVEHOOK_CONFIG",
        "the TOML file with these settings, [handlers.NAME] and [sources.NAME]",
        "the path of a TOML file",
        values.text,
        default=f"{DEFAULT_FILE} if there",
    )
    dispatch: Literal["background", "inline", "external"] = _set(
        "background",
        "WAVEHOOK_DISPATCH",
        "when handlers run: background, inline (before the reply, within a deadline) or "
        "external (`wavehook worker` or `wavehook drain` does it)",
        "background, inline or external",
        values.one_of("background", "inline", "external"),
    )
    max_body: int = _set(
        1024**2,
        "WAVEHOOK_MAX_BODY",
        "the largest body taken, in bytes",
        "a number of bytes from 1 to 256 MiB, such as 1048576 or 1MiB",
        values.within(values.size, 1, 256 * 1024**2),
        default="1MiB",
    )
    host: str = _set(
        "127.0.0.1",
        "WAVEHOOK_HOST",
        "the address where `serve` listens",
        "an address or host name",
        values.text,
    )
    port: int = _set(
        8080,
        "WAVEHOOK_PORT",
        "the port where `serve` listens; 0 takes a free one",
        "a whole number from 0 to 65535",
        values.within(values.whole, 0, 65535),
    )
    modules: tuple[str, ...] = _set(
        (),
        "WAVEHOOK_HANDLERS",
        "Python modules with decorated handlers",
        "dotted names of Python modules with commas between",
        values.modules,
        many=True,
    )
    body_deadline: float = _set(
        10.0,
        "WAVEHOOK_BODY_DEADLINE",
        "how long a body may take to arrive",
        "a time of more than 0, in seconds or as 10s",
        values.within(values.seconds, 0.001, _MONTH),
        default="10s",
    )
    inline_deadline: float = _set(
        20.0,
        "WAVEHOOK_INLINE_DEADLINE",
        "how long the reply waits for handlers where dispatch is inline",
        "a time of more than 0, in seconds or as 20s",
        values.within(values.seconds, 0.001, _MONTH),
        default="20s",
    )
    grace: float = _set(
        10.0,
        "WAVEHOOK_GRACE",
        "how long running handlers may finish at a shutdown; then their leases are given back",
        "a time, in seconds or as 10s",
        values.within(values.seconds, 0, _MONTH),
        default="10s",
    )
    lease: float = _set(
        60.0,
        "WAVEHOOK_LEASE",
        "how long after a killed worker its dispatches are taken up by another",
        "a time of at least 1s, in seconds or as 60s",
        values.within(values.seconds, 1, _MONTH),
        default="60s",
    )
    retention_days: int = _set(
        30,
        "WAVEHOOK_RETENTION_DAYS",
        "the age from which `purge` removes payloads; deduplication keys stay at least 30 days",
        "a whole number of days from 0 to 36500",
        values.within(values.whole, 0, 36500),
    )
    log_level: Literal["debug", "info", "warning", "error"] = _set(
        "info",
        "WAVEHOOK_LOG_LEVEL",
        "the least important log lines that are written",
        "debug, info, warning or error",
        values.one_of("debug", "info", "warning", "error"),
    )
    rate: int | None = _set(
        None,
        "WAVEHOOK_RATE",
        "how many tasks are submitted in any minute at most, by all processes on this database",
        "a whole number from 1 to 1000000; leave it out for no limit",
        values.within(values.whole, 1, 1_000_000),
    )
    in_flight: int | None = _set(
        None,
        "WAVEHOOK_IN_FLIGHT",
        "how many submitted tasks may be unfinished at once",
        "a whole number from 1 to 1000000; leave it out for no limit",
        values.within(values.whole, 1, 1_000_000),
    )
    overdue: float = _set(
        300.0,
        "WAVEHOOK_OVERDUE",
        "how long after its submit a result counts as overdue, where its model has no history yet",
        "a time of more than 0, in seconds or as 5m",
        values.within(values.seconds, 0.001, _MONTH),
        default="5m",
    )
    submit_timeout: float = _set(
        60.0,
        "WAVEHOOK_SUBMIT_TIMEOUT",
        "how long the answer to one submit may take; then it is unknown, and is settled from the "
        "API's history",
        "a time of more than 0, in seconds or as 60s",
        values.within(values.seconds, 0.001, _MONTH),
        default="60s",
    )
    reconcile: Literal["on", "off"] = _set(
        "on",
        "WAVEHOOK_RECONCILE",
        "whether `serve` asks the API for results whose webhook did not come, where "
        "WAVESPEED_API_KEY is set",
        "on or off",
        values.one_of("on", "off"),
    )
    sources: Mapping[str, SourceSettings] = field(default_factory=dict)
    handlers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)
    directory: Path = field(default_factory=Path)
    platform: Platform | None = None

    @property
    def key_path(self) -> Path | None:
        """The file of the generated seal key, beside the SQLite file; None on PostgreSQL."""
        path = self.database_path
        return None if path is None else path.with_suffix(".key")

    @property
    def database_path(self) -> Path | None:
        """The SQLite file, a relative one taken from `directory`; None on PostgreSQL."""
        if is_postgres(self.database):
            return None
        return self.directory / self.database.removeprefix("sqlite:///")

    @property
    def pooler(self) -> bool:
        """Whether a pooler in transaction mode stands before PostgreSQL."""
        return self.database_pooler == "on"

    @property
    def database_place(self) -> str:
        """Where the database is, for people and logs: never its password."""
        path = self.database_path
        if path is None:
            return f"{place(self.database)}, schema {self.database_schema}"
        return str(path)


def _row(field: Field[Any]) -> Setting:
    setting: Setting = field.metadata["setting"]
    shown = "-" if field.default in (None, ()) else str(field.default)
    return replace(setting, field=field.name, default=setting.default or shown)


REFERENCE: Sequence[Setting] = tuple(_row(each) for each in fields(Settings) if each.metadata)
"""Every setting with its name, meaning and default."""

"""The settings table: one row for each setting, and the submitter's rows.

A setting is a dataclass field whose metadata is its row: environment variable, meaning, parser and
default. Flags, help texts, error messages and the reference in the README are made from the rows.
`receiver.config` reuses the rows here and adds its own.

The table is plain Python because it is read at every start: importing pydantic-settings takes
110 ms, a third of a start.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from submitter import units
from submitter.errors import BadSettings
from submitter.storage.postgres_pool import (
    DEFAULT_SCHEMA,
    URL_FORMAT,
    is_postgres,
    schema_name_fault,
    url_fault,
)

BASE_URL = "https://api.wavespeed.ai"

DEFAULT_OVERDUE_S = 300.0
"""Seconds until a result is overdue whose model has no history yet."""

MAX_DURATION_S = 30 * 86400.0
"""Seconds; the longest time that a setting may have."""

Number = TypeVar("Number", int, float)


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the settings table.

    Attributes:
        name: the environment variable.
        meaning: one sentence on its use, without a full stop.
        expected: the values it takes, in words that follow "expected".
        read: parses what was written, or raises ValueError. An error without a text means that
            `expected` says enough.
        default: as a person would write it, or what happens without a value.
        secret: the value is never shown.
        many: takes several values, separated by commas.
        metavar: stands for the value in the help of a command.
        field: the name of its field in the settings object.
    """

    name: str
    meaning: str
    expected: str
    read: Callable[[object], Any]
    default: str = ""
    secret: bool = False
    many: bool = False
    metavar: str = "TEXT"
    field: str = ""

    @property
    def section(self) -> str:
        """Section of `wavehook.toml`."""
        return self.name.partition("_")[0].lower()

    @property
    def key(self) -> str:
        """Key in that section."""
        return self.name.partition("_")[2].lower()

    @property
    def flag(self) -> str:
        """Flag of the commands that take this setting."""
        return "--" + self.key.replace("_", "-")


def setting(
    value: object,
    name: str,
    meaning: str,
    expected: str,
    read: Callable[[object], Any],
    *,
    shown: bool = True,
    **more: Any,
) -> Any:
    """Define a field of a settings dataclass together with its row.

    Args:
        value: the default.
        name: as in `Setting`.
        meaning: as in `Setting`.
        expected: as in `Setting`.
        read: as in `Setting`.
        shown: the field is part of the object's repr; a secret never is.
        more: other attributes of `Setting`.
    """
    row = Setting(name, meaning, expected, read, **more)
    return field(default=value, repr=shown and not row.secret, metadata={"setting": row})


def rows(settings: type) -> Sequence[Setting]:
    """The rows of a settings dataclass, in the order of its fields."""
    return tuple(_row(each) for each in fields(settings) if each.metadata)


def _row(field: Field[Any]) -> Setting:
    row: Setting = field.metadata["setting"]
    shown = "-" if field.default in (None, ()) else str(field.default)
    return replace(row, field=field.name, default=row.default or shown)


def text(value: object) -> str:
    """Parse one line of printable text, without the spaces around it."""
    if not isinstance(value, str):
        raise ValueError  # noqa: TRY004 - the one error that is collected
    value = value.strip()
    if not value:
        raise ValueError("it is empty; give a value, or remove the setting")
    if not value.isprintable():
        raise ValueError("it contains line breaks or other unprintable characters")
    return value


def one_of(*words: str) -> Callable[[object], str]:
    """Make the parser of a choice between words, in upper or lower case."""

    def read(value: object) -> str:
        found = text(value).lower()
        if found not in words:
            raise ValueError
        return found

    return read


def switch(value: object) -> bool:
    """Parse `on` or `off`."""
    return one_of("on", "off")(value) == "on"


def within(
    read: Callable[[object], Number], least: float, most: float
) -> Callable[[object], Number]:
    """Make a parser that takes only numbers from `least` to `most`."""

    def check(value: object) -> Number:
        number = read(value)
        if not least <= number <= most:
            raise ValueError
        return number

    return check


def items(value: object) -> tuple[str, ...]:
    """Parse a list of texts, or one text that is split at its commas."""
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, list | tuple) or not value:
        raise ValueError
    return tuple(text(item) for item in value)


def whole(value: object) -> int:
    """Parse a whole number; it may be written as text."""
    if isinstance(value, str) and re.fullmatch(r"\d{1,12}", value.strip(), re.ASCII):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError  # noqa: TRY004 - as above
    return value


def seconds(value: object) -> float:
    """Parse a duration such as `30s` or `5m`, or a number of seconds."""
    try:
        return units.seconds(value)
    except ValueError:
        raise ValueError from None


def http_url(value: object) -> str:
    """Parse an http or https URL without query, fragment, user name or final slash."""
    written = text(value)
    parts = urlsplit(written)
    port_is_a_number = parts.port != -1  # reading it raises ValueError for anything else
    if (
        not port_is_a_number
        or parts.scheme not in {"http", "https"}
        or not parts.hostname
        or parts.query
        or parts.fragment
        or "@" in parts.netloc
        or " " in written
    ):
        raise ValueError
    return written.rstrip("/")


def database_url(value: object) -> str:
    """Parse the URL of a SQLite file or a PostgreSQL database."""
    written = text(value)
    if is_postgres(written):
        if fault := url_fault(written):
            raise ValueError(fault)
        return written
    scheme, _, path = written.partition("://")
    if scheme != "sqlite" or not path.startswith("/") or path.strip("/") == "":
        raise ValueError
    if "?" in path or "#" in path or path.endswith("/"):
        raise ValueError
    return written


def schema_name(value: object) -> str:
    """Parse the name of a PostgreSQL schema."""
    written = text(value)
    if fault := schema_name_fault(written):
        raise ValueError(fault)
    return written


@dataclass(frozen=True, slots=True)
class SubmitSettings:
    """The settings of the submitter."""

    api_key: str | None = setting(
        None,
        "WAVESPEED_API_KEY",
        "API key of the WaveSpeedAI account: submits tasks and fetches the webhook secret",
        "the key as the account page shows it",
        text,
        secret=True,
    )
    base_url: str | None = setting(
        None,
        "WAVESPEED_BASE_URL",
        "address of the WaveSpeedAI API",
        "an http or https URL without a query",
        http_url,
        default=BASE_URL,
        metavar="URL",
    )
    public_url: str | None = setting(
        None,
        "WAVEHOOK_PUBLIC_URL",
        "public address of this receiver, to which webhooks are sent",
        "an http or https URL without a query",
        http_url,
        metavar="URL",
    )
    seal_keys: tuple[str, ...] = setting(
        (),
        "WAVEHOOK_SEAL_KEYS",
        "Fernet keys that encrypt the context in webhook URLs, newest first",
        "keys from `wavehook secret --seal-key`, separated by commas",
        items,
        default="a generated key file beside the SQLite file",
        secret=True,
        many=True,
    )
    database: str = setting(
        "sqlite:///wavehook.db",
        "WAVEHOOK_DATABASE",
        "database of the inbox and of the ledger of submissions",
        f"sqlite:///PATH (relative), sqlite:////PATH (absolute) or {URL_FORMAT}",
        database_url,
        shown=False,  # its URL may hold a password
        metavar="URL",
    )
    database_schema: str = setting(
        DEFAULT_SCHEMA,
        "WAVEHOOK_DATABASE_SCHEMA",
        "PostgreSQL schema of the tables; created if it does not exist",
        "lower-case letters, digits and underscores, at most 48",
        schema_name,
        metavar="NAME",
    )
    database_pooler: bool = setting(
        False,
        "WAVEHOOK_DATABASE_POOLER",
        "on if a pooler in transaction mode, such as PgBouncer, is in front of PostgreSQL",
        "on or off",
        switch,
        default="off",
        metavar="on|off",
    )
    admin_token: str | None = setting(
        None,
        "WAVEHOOK_ADMIN_TOKEN",
        "password of /api and the dashboard; without it they do not exist",
        "a long random text",
        text,
        secret=True,
    )
    rate: int | None = setting(
        None,
        "WAVEHOOK_RATE",
        "maximum number of tasks submitted in any minute, by all processes on this database",
        "a whole number from 1 to 1000000; leave it out for no limit",
        within(whole, 1, 1_000_000),
        metavar="COUNT",
    )
    in_flight: int | None = setting(
        None,
        "WAVEHOOK_IN_FLIGHT",
        "maximum number of submitted tasks that are unfinished at the same time",
        "a whole number from 1 to 1000000; leave it out for no limit",
        within(whole, 1, 1_000_000),
        metavar="COUNT",
    )
    overdue: float = setting(
        DEFAULT_OVERDUE_S,
        "WAVEHOOK_OVERDUE",
        "time from the submit until a result is overdue, if its model has no history yet",
        "a time of more than 0, in seconds or as 5m",
        within(seconds, 0.001, MAX_DURATION_S),
        default="5m",
        metavar="TIME",
    )
    submit_timeout: float = setting(
        60.0,
        "WAVEHOOK_SUBMIT_TIMEOUT",
        "timeout of one submit request; after it, the API's history tells whether a task exists",
        "a time of more than 0, in seconds or as 500ms, 60s or 5m",
        within(seconds, 0.001, MAX_DURATION_S),
        default="60s",
        metavar="TIME",
    )

    @property
    def database_path(self) -> Path | None:
        """File of the ledger; None on PostgreSQL.

        Raises:
            BadSettings: the database is neither SQLite nor PostgreSQL.
        """
        if is_postgres(self.database):
            return None
        scheme, found, path = self.database.partition(":///")
        if not (found and path and scheme == "sqlite"):
            raise BadSettings("WAVEHOOK_DATABASE", f"expected sqlite:///PATH or {URL_FORMAT}")
        return Path(path)

    @property
    def key_path(self) -> Path | None:
        """File of the generated seal key, beside the database; None on PostgreSQL."""
        path = self.database_path
        return None if path is None else path.with_suffix(".key")


def from_environment(environ: Mapping[str, str] | None = None) -> SubmitSettings:
    """Read the settings from the environment only; the commands read `wavehook.toml` too.

    An empty variable counts as not set.

    Args:
        environ: the environment; the process's own by default.

    Raises:
        BadSettings: with every faulty setting, and what was expected; carries the first one's name.
    """
    given = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    faults: dict[str, str] = {}
    for row in rows(SubmitSettings):
        # A list may end with a comma, and a blank variable is not set.
        written = given.get(row.name, "").strip(" ,\t\n") if row.many else given.get(row.name, "")
        if not written.strip():
            continue
        try:
            values[row.field] = row.read(written)
        except ValueError as error:
            reason = str(error)
            faults[row.name] = reason if "expected" in reason else f"expected {row.expected}"
    if faults:
        first, *others = faults
        lines = [faults[first], *(f"{name}: {faults[name]}" for name in others)]
        raise BadSettings(first, "\n".join(lines))
    return SubmitSettings(**values)

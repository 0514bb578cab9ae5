"""What the submitter needs to know, from the environment or from whoever reads more than that."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from submitter.errors import BadSettings
from submitter.postgres import EXPECTED, SCHEMA, is_postgres

BASE_URL = "https://api.wavespeed.ai"

DATABASE = "sqlite:///wavehook.db"

OVERDUE = 300.0
"""Seconds after which a result is overdue whose model has no history yet."""

SUBMIT_TIMEOUT = 60.0
"""Seconds that the answer to one submit may take."""


@dataclass(frozen=True, slots=True)
class SubmitSettings:
    """The settings of the submitter.

    Attributes:
        api_key: `WAVESPEED_API_KEY`.
        base_url: `WAVESPEED_BASE_URL`; None for the API's own address.
        public_url: `WAVEHOOK_PUBLIC_URL`; None asks for no webhooks.
        seal_keys: `WAVEHOOK_SEAL_KEYS`, newest first; none: the key file beside the database.
        database: `WAVEHOOK_DATABASE`, where the ledger is.
        database_schema: `WAVEHOOK_DATABASE_SCHEMA`, on PostgreSQL.
        database_pooler: `WAVEHOOK_DATABASE_POOLER`: a transaction-mode pooler stands before it.
        admin_token: `WAVEHOOK_ADMIN_TOKEN`: results are also heard of from the receiver at the
            public URL.
        rate: `WAVEHOOK_RATE`: submits a minute; None for no limit.
        in_flight: `WAVEHOOK_IN_FLIGHT`: open tasks at once; None for no limit.
        overdue: `WAVEHOOK_OVERDUE`, in seconds.
        submit_timeout: `WAVEHOOK_SUBMIT_TIMEOUT`, in seconds.
    """

    api_key: str | None = field(default=None, repr=False)
    base_url: str | None = None
    public_url: str | None = None
    seal_keys: tuple[str, ...] = field(default=(), repr=False)
    database: str = field(default=DATABASE, repr=False)  # its URL may hold a password
    database_schema: str = SCHEMA
    database_pooler: bool = False
    admin_token: str | None = field(default=None, repr=False)
    rate: int | None = None
    in_flight: int | None = None
    overdue: float = OVERDUE
    submit_timeout: float = SUBMIT_TIMEOUT

    @property
    def database_path(self) -> Path | None:
        """The file of the ledger; None on PostgreSQL.

        Raises:
            BadSettings: the database is neither.
        """
        if is_postgres(self.database):
            return None
        scheme, found, path = self.database.partition(":///")
        if not (found and path and scheme == "sqlite"):
            raise BadSettings("WAVEHOOK_DATABASE", f"expected sqlite:///PATH or {EXPECTED}")
        return Path(path)

    @property
    def key_path(self) -> Path | None:
        """The file of the generated seal key, beside the database; None on PostgreSQL."""
        path = self.database_path
        return None if path is None else path.with_suffix(".key")


def from_environment(environ: Mapping[str, str] | None = None) -> SubmitSettings:
    """Read the settings from the environment alone; `wavehook.toml` is for the commands.

    Raises:
        BadSettings: one of them cannot be; names it, with what was expected.
    """
    given = os.environ if environ is None else environ
    keys = given.get("WAVEHOOK_SEAL_KEYS", "").split(",")
    return SubmitSettings(
        api_key=given.get("WAVESPEED_API_KEY"),
        base_url=given.get("WAVESPEED_BASE_URL"),
        public_url=given.get("WAVEHOOK_PUBLIC_URL"),
        seal_keys=tuple(key.strip() for key in keys if key.strip()),
        database=given.get("WAVEHOOK_DATABASE") or DATABASE,
        database_schema=given.get("WAVEHOOK_DATABASE_SCHEMA") or SCHEMA,
        database_pooler=_switch(given, "WAVEHOOK_DATABASE_POOLER"),
        admin_token=given.get("WAVEHOOK_ADMIN_TOKEN"),
        rate=_count(given, "WAVEHOOK_RATE"),
        in_flight=_count(given, "WAVEHOOK_IN_FLIGHT"),
        overdue=_seconds(given, "WAVEHOOK_OVERDUE", OVERDUE),
        submit_timeout=_seconds(given, "WAVEHOOK_SUBMIT_TIMEOUT", SUBMIT_TIMEOUT),
    )


def _count(given: Mapping[str, str], name: str) -> int | None:
    text = given.get(name, "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and int(text[:9]) > 0 and len(text) < 10):
        raise BadSettings(name, "expected a whole number of at least 1")
    return int(text)


def _switch(given: Mapping[str, str], name: str) -> bool:
    text = given.get(name, "").strip().lower()
    if text not in {"", "on", "off"}:
        raise BadSettings(name, "expected on or off")
    return text == "on"


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}

TIME = "a time of more than 0, in seconds or as 500ms, 30s, 5m"
"""What `seconds` reads, in words."""


def seconds(text: str) -> float | None:
    """Read a time that a person wrote; None where it is none, or longer than 30 days."""
    text = text.strip()
    unit = next((unit for unit in _UNITS if text.endswith(unit)), "")
    try:
        value = float(text.removesuffix(unit)) * _UNITS.get(unit, 1.0)
    except ValueError:
        return None
    # NaN is in no range.
    return value if 0.0 < value <= 30 * 86400.0 else None


def _seconds(given: Mapping[str, str], name: str, default: float) -> float:
    text = given.get(name, "")
    if not text.strip():
        return default
    value = seconds(text)
    if value is None:
        raise BadSettings(name, f"expected {TIME}")
    return value

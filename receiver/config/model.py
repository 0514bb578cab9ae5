"""The settings: one frozen object, and the table of their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from receiver.config import values
from receiver.config.source import SourceSettings

DEFAULT_FILE = "wavehook.toml"


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the reference.

    Attributes:
        name: the environment variable.
        meaning: what it is for.
        expected: what a value must be, to stand after "expected".
        default: as a person would write it, or what happens without a value.
        secret: its value is never shown.
        many: it takes several values, separated by commas.
        field: its name in `Settings`.
    """

    name: str
    meaning: str
    expected: str
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


Seconds = Annotated[float, BeforeValidator(values.seconds), Field(le=86400 * 30)]


class Settings(BaseModel):
    """All settings, read and checked; `receiver.config.load` makes them."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    api_key: Annotated[
        SecretStr | None,
        BeforeValidator(values.text),
        Setting(
            "WAVESPEED_API_KEY",
            "the key of the WaveSpeedAI account: submits, and fetches the webhook secret",
            "the key as the account page shows it",
            secret=True,
        ),
    ] = None
    base_url: Annotated[
        str,
        BeforeValidator(values.http_url),
        Setting(
            "WAVESPEED_BASE_URL",
            "where the WaveSpeedAI API is",
            "an http or https URL, without query",
        ),
    ] = "https://api.wavespeed.ai"
    database: Annotated[
        str,
        BeforeValidator(values.database_url),
        Setting(
            "WAVEHOOK_DATABASE",
            "the inbox",
            "sqlite:///PATH (from the working directory) or sqlite:////PATH (absolute)",
        ),
    ] = "sqlite:///wavehook.db"
    wavespeed_secrets: Annotated[
        tuple[SecretStr, ...],
        BeforeValidator(values.items),
        Setting(
            "WAVEHOOK_WAVESPEED_SECRETS",
            "webhook secrets of WaveSpeedAI; all are tried",
            "one or more whsec_… with commas between",
            default="fetched with the API key",
            secret=True,
            many=True,
        ),
    ] = ()
    public_url: Annotated[
        str | None,
        BeforeValidator(values.http_url),
        Setting(
            "WAVEHOOK_PUBLIC_URL",
            "where the sender reaches this receiver",
            "an http or https URL, without query",
        ),
    ] = None
    seal_keys: Annotated[
        tuple[SecretStr, ...],
        BeforeValidator(values.items),
        Setting(
            "WAVEHOOK_SEAL_KEYS",
            "Fernet keys that seal the context into webhook URLs, newest first",
            "keys that `wavehook secret --seal-key` makes, with commas between",
            default="a generated key file beside the database",
            secret=True,
            many=True,
        ),
    ] = ()
    admin_token: Annotated[
        SecretStr | None,
        BeforeValidator(values.text),
        Setting(
            "WAVEHOOK_ADMIN_TOKEN",
            "opens /api and the dashboard; without it they do not exist",
            "a long random text",
            secret=True,
        ),
    ] = None
    config: Annotated[
        Path | None,
        Setting(
            "WAVEHOOK_CONFIG",
            "the TOML file with these settings, [handlers.NAME] and [sources.NAME]",
            "the path of a TOML file",
            default=f"{DEFAULT_FILE} if there",
        ),
    ] = None
    dispatch: Annotated[
        Literal["background", "inline", "external"],
        BeforeValidator(values.word),
        Setting(
            "WAVEHOOK_DISPATCH",
            "when handlers run: background, inline (before the reply, within a deadline) or "
            "external (`wavehook worker` or `wavehook drain` does it)",
            "background, inline or external",
        ),
    ] = "background"
    max_body: Annotated[
        int,
        BeforeValidator(values.size),
        Field(ge=1, le=256 * 1024**2),
        Setting(
            "WAVEHOOK_MAX_BODY",
            "the largest body taken, in bytes",
            "a number of bytes from 1 to 256 MiB, such as 1048576 or 1MiB",
            default="1MiB",
        ),
    ] = 1024**2
    host: Annotated[
        str,
        BeforeValidator(values.text),
        Setting("WAVEHOOK_HOST", "the address where `serve` listens", "an address or host name"),
    ] = "127.0.0.1"
    port: Annotated[
        int,
        BeforeValidator(values.whole),
        Field(ge=0, le=65535),
        Setting(
            "WAVEHOOK_PORT",
            "the port where `serve` listens; 0 takes a free one",
            "a whole number from 0 to 65535",
        ),
    ] = 8080
    modules: Annotated[
        tuple[str, ...],
        BeforeValidator(values.modules),
        Setting(
            "WAVEHOOK_HANDLERS",
            "Python modules with decorated handlers",
            "dotted names of Python modules with commas between",
            many=True,
        ),
    ] = ()
    body_deadline: Annotated[
        Seconds,
        Field(ge=0.001),
        Setting(
            "WAVEHOOK_BODY_DEADLINE",
            "how long a body may take to arrive",
            "a time of more than 0, in seconds or as 10s",
            default="10s",
        ),
    ] = 10.0
    inline_deadline: Annotated[
        Seconds,
        Field(ge=0.001),
        Setting(
            "WAVEHOOK_INLINE_DEADLINE",
            "how long the reply waits for handlers where dispatch is inline",
            "a time of more than 0, in seconds or as 20s",
            default="20s",
        ),
    ] = 20.0
    grace: Annotated[
        Seconds,
        Field(ge=0.0),
        Setting(
            "WAVEHOOK_GRACE",
            "how long running handlers may finish at a shutdown; then their leases are given back",
            "a time, in seconds or as 10s",
            default="10s",
        ),
    ] = 10.0
    lease: Annotated[
        Seconds,
        Field(ge=1.0),
        Setting(
            "WAVEHOOK_LEASE",
            "how long after a killed worker its dispatches are taken up by another",
            "a time of at least 1s, in seconds or as 60s",
            default="60s",
        ),
    ] = 60.0
    retention_days: Annotated[
        int,
        BeforeValidator(values.whole),
        Field(ge=0, le=36500),
        Setting(
            "WAVEHOOK_RETENTION_DAYS",
            "the age from which `purge` removes payloads; deduplication keys stay at least 30 days",
            "a whole number of days from 0 to 36500",
        ),
    ] = 30
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        BeforeValidator(values.word),
        Setting(
            "WAVEHOOK_LOG_LEVEL",
            "the least important log lines that are written",
            "debug, info, warning or error",
        ),
    ] = "info"
    sources: Mapping[str, SourceSettings] = Field(default_factory=dict)
    handlers: Mapping[str, Mapping[str, Any]] = Field(default_factory=dict, repr=False)
    directory: Path = Field(default_factory=Path)

    @property
    def key_path(self) -> Path:
        """The file of the generated seal key, beside the database."""
        return self.database_path.with_suffix(".key")

    @property
    def database_path(self) -> Path:
        """The file of the SQLite database; a relative one is taken from `directory`."""
        return self.directory / self.database.removeprefix("sqlite:///")


def _reference() -> Sequence[Setting]:
    rows = []
    for field, info in Settings.model_fields.items():
        for setting in info.metadata:
            if isinstance(setting, Setting):
                default = cast("object", info.default)
                shown = setting.default or ("-" if default in (None, ()) else str(default))
                rows.append(replace(setting, field=field, default=shown))
    return tuple(rows)


REFERENCE: Sequence[Setting] = _reference()
"""Every setting with its name, meaning and default."""

"""From what was written (flags, environment, TOML) to `Settings`, with every fault at once.

The tables `[sources.NAME]` and `[handlers.NAME]` of the file.

How a fault is told: bounded, printable, and without a secret.

References among the settings: in texts, in lists, and in several values in one text.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from receiver.config.platform import platform_of
from receiver.config.settings import DEFAULT_FILE, REFERENCE, Setting, Settings
from receiver.errors import SettingsError
from receiver.secret_refs import fetch
from receiver.sources.base import WAVESPEED
from submitter.suggest import suggest

if TYPE_CHECKING:
    from pydantic import ValidationError

    from receiver.config.source import SourceSettings


MASK = "***"
"""Stands for the value of a secret."""


def reason_of(fault: Mapping[str, Any]) -> str | None:
    """The text that a check of ours has raised, if it has said anything."""
    cause = fault.get("ctx", {}).get("error")
    return str(cause) or None if isinstance(cause, ValueError) else None


_DATABASE = re.compile(r"(\bpostgres[\w+.-]*:/*).*", re.IGNORECASE)
"""Where such a URL is malformed, any part of it may be a part of its password."""


def shown(value: object) -> str:
    """A value in a fault, without the password that a URL may hold."""
    try:
        masked = re.sub(r"://.*@", f"://{MASK}@", repr(value))
        return _cut(_DATABASE.sub(rf"\1{MASK}'", masked))
    except ValueError:  # an integer of more digits than Python writes
        return "a number of thousands of digits"


def safe(name: str) -> str:
    """A name that somebody wrote, bounded and printable (F17)."""
    return _cut(name if name.isprintable() else repr(name))


def _cut(shown: str) -> str:
    return shown if len(shown) <= 100 else shown[:97] + "..."


class Resolver:
    """Reads references.

    Args:
        environ: the environment.
        cwd: the directory from which relative paths are taken.
    """

    def __init__(self, environ: Mapping[str, str], cwd: Path) -> None:
        self._environ = environ
        self._cwd = cwd

    def resolve(self, label: str, value: object, faults: list[str], *, many: bool = False) -> Any:
        """Put in what references name, also in a list.

        Args:
            label: the setting, as it stands in a fault.
            value: as it was written.
            faults: gets one sentence for each reference that cannot be read.
            many: a text is several values with commas between, and each may be a reference.

        Returns:
            The value; None where it cannot be read.
        """
        if isinstance(value, list):
            return [self.resolve(label, item, faults) for item in value]
        if not isinstance(value, str):
            return value
        parts = value.split(",") if many else [value]
        read = [self._text(label, part, faults) for part in parts]
        return ",".join(part for part in read if part is not None) if None not in read else None

    def _text(self, label: str, written: str, faults: list[str]) -> str | None:
        try:
            found = fetch(written, self._environ, self._cwd)
        except ValueError as error:
            # The reference alone is shown; what stands beside it may be a secret.
            faults.append(f"{label} = {written.strip()!r}: {error}")
            return None
        return written if found is None else found


def read_sources(
    document: Mapping[str, Any], resolver: Resolver, faults: list[str]
) -> dict[str, SourceSettings]:
    """Every source; those with a fault are left out."""
    sections = list(_sections(document, "sources", faults))
    if not sections:
        return {}
    # Who has no sections need not wait for pydantic at a start.
    from pydantic import ValidationError

    from receiver.config.source import NAME, SourceSettings

    sources = {}
    for name, section in sections:
        label = f"sources.{safe(name)}"
        if not re.fullmatch(NAME, name, re.ASCII):
            faults.append(f"{label}: expected a name of 1 to 32 characters from a-z, 0-9, _ and -")
            continue
        read = {
            key: resolver.resolve(f"{label}.{safe(key)}", value, faults, many=key == "secrets")
            for key, value in section.items()
        }
        try:
            sources[name] = SourceSettings.model_validate(read)
        except ValidationError as error:
            faults.extend(_source_faults(label, read, error))
    return sources


def _source_faults(label: str, read: Mapping[str, Any], error: ValidationError) -> Iterable[str]:
    from receiver.config.source import SourceSettings

    fields = SourceSettings.model_fields
    for fault in error.errors(include_url=False, include_input=False):
        key = str(fault["loc"][0]) if fault["loc"] else ""
        if not key:
            yield f"{label}: {reason_of(fault) or fault['msg']}"
        elif key not in fields:
            yield f"{label}.{safe(key)}: there is no such key{suggest(key, fields)}"
        elif fault["type"] == "missing":
            yield f"{label}.{key}: it is missing; expected {fields[key].description}"
        elif read[key] is not None:  # else a fault of its own has told of the reference
            value = MASK if key == "secrets" else shown(read[key])
            reason = reason_of(fault) or f"expected {fields[key].description}"
            yield f"{label}.{key} = {value}: {reason}"


def check_sources(settings: Settings, faults: list[str]) -> None:
    """The name `wavespeed` means one thing: a setting fills in the secrets of that source."""
    for name, source in settings.sources.items():
        if name == WAVESPEED and source.use != "wavespeed":
            faults.append(
                f'sources.{name}.use = {source.use!r}: the name belongs to use = "wavespeed"; '
                "choose another name"
            )
        if name != WAVESPEED and source.use == "wavespeed" and not source.secrets:
            faults.append(f"sources.{name}: expected secrets: one or more whsec_…")


def read_handlers(document: Mapping[str, Any], faults: list[str]) -> dict[str, Mapping[str, Any]]:
    """Every handler's section as it stands, for whoever installs the handlers."""
    return dict(_sections(document, "handlers", faults))


def _sections(
    document: Mapping[str, Any], kind: str, faults: list[str]
) -> Iterable[tuple[str, dict[str, Any]]]:
    content = document.get(kind, {})
    for name, section in content.items() if isinstance(content, dict) else ():
        if isinstance(section, dict):
            yield name, section
        else:
            faults.append(f"{kind}.{safe(name)}: expected a section [{kind}.NAME], not a value")


PREFIX = "WAVEHOOK_"
MAX_DEPTH = 16
"""Levels of tables and lists in the file."""

_BY_NAME = {setting.name: setting for setting in REFERENCE}
_SECTIONS = ("wavehook", "wavespeed", "sources", "handlers")

# Kubernetes and Docker links describe a service called "wavehook" to every container beside it:
# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_SERVICE_LINK = re.compile(
    r"WAVEHOOK_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)


@dataclass(frozen=True, slots=True)
class Reading:
    """What `read` found.

    Attributes:
        settings: of all that is right; a faulty setting has its default.
        faults: one sentence each: the setting, its value (secrets masked), what was expected.
    """

    settings: Settings
    faults: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Written:
    """One value, and where a person wrote it."""

    label: str
    value: Any


def load(
    environ: Mapping[str, str], *, overrides: Mapping[str, object] | None = None, cwd: Path
) -> Settings:
    """Read all settings: flags before the environment, the environment before the file.

    Args:
        environ: the environment.
        overrides: values of flags, by the name of the setting (`WAVEHOOK_PORT`).
        cwd: the directory from which relative paths are taken.

    Raises:
        SettingsError: with every fault.
    """
    reading = read(environ, overrides=overrides, cwd=cwd)
    if reading.faults:
        raise SettingsError(reading.faults)
    return reading.settings


def read(
    environ: Mapping[str, str], *, overrides: Mapping[str, object] | None = None, cwd: Path
) -> Reading:
    """As `load`, but never raises: for a caller that has more to check before it reports."""
    flags = {name: value for name, value in (overrides or {}).items() if value is not None}
    resolver = Resolver(environ, cwd)
    faults: list[str] = []
    path, document = _document(environ, flags, cwd, faults)
    written = {
        **_from_file(document, faults),
        **_from_environment(environ, _references([document, *environ.values()])),
        **{name: _Written(_BY_NAME[name].flag, v) for name, v in flags.items()},
    }
    written.pop("WAVEHOOK_CONFIG", None)
    values: dict[str, Any] = {}
    for name, entry in written.items():
        setting = _BY_NAME.get(name)
        if setting is None:
            hint = suggest(name, [n for n in _BY_NAME if n.startswith(PREFIX)], PREFIX)
            faults.append(f"{safe(name)}: there is no such setting{hint}")
            continue
        value = resolver.resolve(entry.label, entry.value, faults, many=setting.many)
        if value is None:
            continue
        try:
            values[setting.field] = setting.read(value)
        except ValueError as error:
            faults.append(_fault(setting, entry, str(error)))
    sources = read_sources(document, resolver, faults)
    handlers = read_handlers(document, faults)
    settings = Settings(
        **values,
        config=path,
        directory=cwd,
        platform=platform_of(environ),
        sources=sources,
        handlers=handlers,
    )
    check_sources(settings, faults)
    return Reading(settings, tuple(faults))


def _document(
    environ: Mapping[str, str], flags: Mapping[str, object], cwd: Path, faults: list[str]
) -> tuple[Path | None, dict[str, Any]]:
    """The TOML file, if there is one."""
    label = "--config" if "WAVEHOOK_CONFIG" in flags else "WAVEHOOK_CONFIG"
    named = str(flags.get("WAVEHOOK_CONFIG", environ.get("WAVEHOOK_CONFIG", DEFAULT_FILE)))
    chosen = "WAVEHOOK_CONFIG" in flags or "WAVEHOOK_CONFIG" in environ
    where = f"{label} = {shown(named)}" if chosen else DEFAULT_FILE
    try:
        path = cwd / named
        if not chosen and not path.is_file():
            return None, {}
        return path, _shallow(tomllib.loads(path.read_bytes().decode()))
    except OSError as error:
        faults.append(f"{where}: expected a TOML file that can be read ({error.strerror})")
    # RecursionError: nested too deeply; ValueError: no UTF-8, no TOML, a NUL in the path.
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, tomllib.TOMLDecodeError) else type(error).__name__
        faults.append(f"{where}: expected a TOML file ({safe(reason)})")
    return None, {}


def _shallow(document: dict[str, Any]) -> dict[str, Any]:
    if _deeper(document, MAX_DEPTH):
        raise RecursionError
    return document


def _deeper(value: object, levels: int) -> bool:
    nested = list(value.values()) if isinstance(value, dict) else value
    return isinstance(nested, list) and (
        levels == 0 or any(_deeper(item, levels - 1) for item in nested)
    )


def _from_file(document: Mapping[str, Any], faults: list[str]) -> dict[str, _Written]:
    found = {}
    for section, content in document.items():
        if section not in _SECTIONS and not isinstance(content, dict):
            faults.append(f"{safe(section)}: expected it in a section, such as [wavehook]")
        elif section not in _SECTIONS:
            faults.append(f"{safe(section)}: there is no such section{suggest(section, _SECTIONS)}")
        elif not isinstance(content, dict):
            faults.append(f"{section}: expected a section, not a value")
        elif section in ("wavehook", "wavespeed"):
            keys = {s.key: s for s in REFERENCE if s.section == section and s.key != "config"}
            for key, value in content.items():
                label = f"{section}.{safe(key)}"
                if key in keys:
                    found[keys[key].name] = _Written(label, value)
                else:
                    faults.append(f"{label}: there is no such key{suggest(key, keys)}")
    return found


def _from_environment(environ: Mapping[str, str], known: set[str]) -> dict[str, _Written]:
    found = {}
    for name, value in environ.items():
        ours = name.startswith(PREFIX) or name in _BY_NAME
        linked = _SERVICE_LINK.fullmatch(name) or (
            name == "WAVEHOOK_PORT" and value.startswith(("tcp://", "udp://"))
        )
        if ours and not linked and name not in known - _BY_NAME.keys():
            found[name] = _Written(name, value)
    return found


def _references(value: object) -> set[str]:
    """Names of environment variables that the file asks for by `env:NAME`."""
    if isinstance(value, str):
        return {name.strip()[4:] for name in value.split(",") if name.strip().startswith("env:")}
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return {name for item in value for name in _references(item)}
    return set()


def _fault(setting: Setting, entry: _Written, reason: str) -> str:
    if "expected" not in reason:
        expected = f"expected {setting.expected}"
        reason = f"{reason}; {expected}" if reason else expected
    return f"{entry.label} = {MASK if setting.secret else shown(entry.value)}: {reason}"

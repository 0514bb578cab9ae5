"""Loads settings from flags, the environment and `wavehook.toml`, and reports all faults at once.

A flag beats the environment, and the environment beats the file. In all three, `env:NAME`,
`file:PATH` or `ssm:NAME` may stand in place of a value.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from receiver.config.platform import platform_of
from receiver.config.settings import DEFAULT_FILE, REFERENCE, Secret, Settings
from receiver.errors import SettingsError
from receiver.secret_refs import fetch
from submitter.errors import suggest
from submitter.settings import Setting

if TYPE_CHECKING:
    from receiver.config.source import SourceSettings

PREFIX = "WAVEHOOK_"
MASK = "***"
"""Stands for the value of a secret."""

_DATABASE = re.compile(r"(\bpostgres[\w+.-]*:/*).*", re.IGNORECASE)
"""Any part of a malformed PostgreSQL URL may be a part of its password."""

_MAX_FAULT_CHARACTERS = 100

MAX_DEPTH = 16
"""Nested tables and lists in the file."""

_BY_NAME = {setting.name: setting for setting in REFERENCE}
_SECTIONS = ("wavehook", "wavespeed", "sources", "handlers")

# Kubernetes and Docker links describe a service called "wavehook" to every container beside it:
# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_SERVICE_LINK = re.compile(
    r"WAVEHOOK_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)


@dataclass(frozen=True, slots=True)
class Reading:
    """Settings as far as they could be read, and the faults of the rest.

    Attributes:
        settings: a faulty setting has its default.
        faults: one sentence each: the setting, its value (secrets masked), what was expected.
    """

    settings: Settings
    faults: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Written:
    """A value as written, with its flag, variable or key for error messages."""

    label: str
    value: Any


class Resolver:
    """Replaces references to the environment, to files and to AWS parameters by their values.

    Args:
        environ: the environment.
        cwd: relative paths begin here.
    """

    def __init__(self, environ: Mapping[str, str], cwd: Path) -> None:
        self._environ = environ
        self._cwd = cwd

    def resolve(self, label: str, value: object, faults: list[str], *, many: bool = False) -> Any:
        """Resolve a text, or each text of a list; other values stay as they are.

        Args:
            label: the setting, for faults.
            value: as written.
            faults: gets one sentence for each reference that cannot be resolved.
            many: the text has several values separated by commas, each of which may be a reference.

        Returns:
            The value; None if a reference cannot be resolved.
        """
        if isinstance(value, list):
            return [self.resolve(label, item, faults) for item in value]
        if not isinstance(value, str):
            return value
        parts = value.split(",") if many else [value]
        found = [self._text(label, part, faults) for part in parts]
        return ",".join(part for part in found if part is not None) if None not in found else None

    def _text(self, label: str, written: str, faults: list[str]) -> str | None:
        try:
            found = fetch(written, self._environ, self._cwd)
        except ValueError as error:
            # Only the reference is shown: the values beside it may be secrets.
            faults.append(f"{label} = {written.strip()!r}: {error}")
            return None
        return written if found is None else found


def load(
    environ: Mapping[str, str], *, overrides: Mapping[str, object] | None = None, cwd: Path
) -> Settings:
    """Read all settings.

    Args:
        environ: the environment.
        overrides: values of flags, by the name of the setting (`WAVEHOOK_PORT`).
        cwd: relative paths begin here.

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
    """Read all settings as `load` does, and return the faults instead of raising them.

    For a caller that has more to check before it reports.
    """
    flags = {name: value for name, value in (overrides or {}).items() if value is not None}
    resolver = Resolver(environ, cwd)
    faults: list[str] = []
    path, document = _document(environ, flags, cwd, faults)
    written = {
        **_from_file(document, faults),
        **_from_environment(environ, _references([document, *environ.values()])),
        **{name: _Written(_BY_NAME[name].flag, value) for name, value in flags.items()},
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
            values[setting.field] = _parsed(setting, value)
        except ValueError as error:
            faults.append(_fault(setting, entry, str(error)))
    settings = Settings(
        **values,
        config=path,
        directory=cwd,
        platform=platform_of(environ),
        sources=_sources(document, resolver, faults),
        handlers=dict(_named_sections(document, "handlers", faults)),
    )
    return Reading(settings, tuple(faults))


def _parsed(setting: Setting, value: object) -> Any:
    parsed = setting.read(value)
    if not setting.secret:
        return parsed
    return tuple(map(Secret, parsed)) if setting.many else Secret(parsed)


def _fault(setting: Setting, entry: _Written, reason: str) -> str:
    if "expected" not in reason:
        expected = f"expected {setting.expected}"
        reason = f"{reason}; {expected}" if reason else expected
    return f"{entry.label} = {MASK if setting.secret else shown(entry.value)}: {reason}"


def _document(
    environ: Mapping[str, str], flags: Mapping[str, object], cwd: Path, faults: list[str]
) -> tuple[Path | None, dict[str, Any]]:
    """The path and the content of the TOML file, if there is one."""
    label = "--config" if "WAVEHOOK_CONFIG" in flags else "WAVEHOOK_CONFIG"
    named = str(flags.get("WAVEHOOK_CONFIG", environ.get("WAVEHOOK_CONFIG", DEFAULT_FILE)))
    chosen = "WAVEHOOK_CONFIG" in flags or "WAVEHOOK_CONFIG" in environ
    where = f"{label} = {shown(named)}" if chosen else DEFAULT_FILE
    try:
        path = cwd / named
        if not chosen and not path.is_file():
            return None, {}
        document = tomllib.loads(path.read_bytes().decode())
        if _is_deeper(document, MAX_DEPTH):
            raise RecursionError
    except OSError as error:
        faults.append(f"{where}: expected a TOML file that can be read ({error.strerror})")
    except tomllib.TOMLDecodeError as error:
        faults.append(f"{where}: expected a TOML file ({safe(str(error))})")
    except RecursionError:
        faults.append(f"{where}: expected a TOML file of at most {MAX_DEPTH} nested levels")
    except UnicodeDecodeError:
        faults.append(f"{where}: expected a TOML file in UTF-8")
    except ValueError:  # a NUL in the path, or a number of thousands of digits
        faults.append(f"{where}: expected a TOML file")
    else:
        return path, document
    return None, {}


def _is_deeper(value: object, levels: int) -> bool:
    nested = list(value.values()) if isinstance(value, dict) else value
    return isinstance(nested, list) and (
        levels == 0 or any(_is_deeper(item, levels - 1) for item in nested)
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


def _from_environment(environ: Mapping[str, str], referenced: set[str]) -> dict[str, _Written]:
    """The variables that are settings, or look like one.

    Args:
        environ: the environment.
        referenced: names that `env:NAME` asks for; such a variable may begin as a setting does.
    """
    found = {}
    for name, value in environ.items():
        is_setting = name.startswith(PREFIX) or name in _BY_NAME
        is_link = _SERVICE_LINK.fullmatch(name) or (
            name == "WAVEHOOK_PORT" and value.startswith(("tcp://", "udp://"))
        )
        if is_setting and not is_link and name not in referenced - _BY_NAME.keys():
            found[name] = _Written(name, value)
    return found


def _references(value: object) -> set[str]:
    """Names of the environment variables that `env:NAME` asks for in a value."""
    if isinstance(value, str):
        return {name.strip()[4:] for name in value.split(",") if name.strip().startswith("env:")}
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return {name for item in value for name in _references(item)}
    return set()


def _sources(
    document: Mapping[str, Any], resolver: Resolver, faults: list[str]
) -> dict[str, SourceSettings]:
    sections = list(_named_sections(document, "sources", faults))
    if not sections:
        return {}
    # It imports pydantic, which a start without sources does not wait for.
    from receiver.config.source import read_sources

    return read_sources(sections, resolver, faults)


def _named_sections(
    document: Mapping[str, Any], kind: str, faults: list[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    content = document.get(kind, {})
    for name, section in content.items() if isinstance(content, dict) else ():
        if isinstance(section, dict):
            yield name, section
        else:
            faults.append(f"{kind}.{safe(name)}: expected a section [{kind}.NAME], not a value")


def shown(value: object) -> str:
    """A value as a fault shows it, without the password of a URL."""
    try:
        masked = re.sub(r"://.*@", f"://{MASK}@", repr(value))
        return _cut(_DATABASE.sub(rf"\1{MASK}'", masked))
    except ValueError:  # an integer of more digits than Python writes
        return "a number of thousands of digits"


def safe(name: str) -> str:
    """A name from the file or the environment, with control characters escaped."""
    return _cut(name if name.isprintable() else repr(name))


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_FAULT_CHARACTERS else f"{text[: _MAX_FAULT_CHARACTERS - 3]}..."

"""The tables `[sources.NAME]` and `[handlers.NAME]` of the file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from receiver.config.faults import MASK, reason_of, safe, shown
from receiver.config.model import Settings
from receiver.config.references import Resolver
from receiver.sources.base import WAVESPEED
from submitter.suggest import suggest

if TYPE_CHECKING:
    from pydantic import ValidationError

    from receiver.config.source import SourceSettings


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

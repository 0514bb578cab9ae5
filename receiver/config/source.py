"""The `[sources.NAME]` sections: a webhook sender, its signature scheme and its secrets.

This module imports pydantic; `load` imports it only for a file with such a section.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    ValidationError,
    model_validator,
)

from receiver.config.load import MASK, safe, shown
from receiver.config.settings import Secret
from receiver.sources.base import WAVESPEED
from submitter.errors import suggest
from submitter.settings import items, text

if TYPE_CHECKING:
    from receiver.config.load import Resolver

_NAME = re.compile(r"[a-z0-9_-]{1,32}", re.ASCII)
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,256}", re.ASCII)
"""https://www.rfc-editor.org/rfc/rfc9110#section-5.6.2"""


def _secrets(value: object) -> tuple[Secret, ...]:
    return tuple(map(Secret, items(value)))


def _header_name(value: object) -> str:
    written = text(value)
    if not _HEADER_NAME.fullmatch(written):
        raise ValueError
    return written


def _prefix(value: object) -> str:
    """Parse printable text that may be empty and keeps its spaces."""
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError
    return value


class SourceSettings(BaseModel):
    """One `[sources.NAME]` section."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    use: Annotated[
        Literal["wavespeed", "standard", "header_hmac", "insecure"],
        Field(description="wavespeed, standard, header_hmac or insecure"),
    ]
    secrets: Annotated[
        tuple[InstanceOf[Secret], ...],
        BeforeValidator(_secrets),
        Field(description="one or more secrets: a list, or one text separated by commas"),
    ] = ()
    header: Annotated[
        str | None,
        BeforeValidator(_header_name),
        Field(description="the name of an HTTP header"),
    ] = None
    prefix: Annotated[
        str | None,
        BeforeValidator(_prefix),
        Field(description="the text before the signature, such as sha256="),
    ] = None
    encoding: Annotated[Literal["hex", "base64"] | None, Field(description="hex or base64")] = None

    @model_validator(mode="after")
    def _check_together(self) -> SourceSettings:
        if self.use == "insecure" and self.secrets:
            raise ValueError(
                "secrets are set, but `insecure` verifies nothing; use another source, or "
                "remove the secrets"
            )
        if self.use in {"standard", "header_hmac"} and not self.secrets:
            raise ValueError(
                'expected secrets, without which nothing can be verified: secrets = "env:NAME"'
            )
        if self.use != "header_hmac" and (self.header, self.prefix, self.encoding) != (None,) * 3:
            raise ValueError('header, prefix and encoding belong to use = "header_hmac" only')
        return self


def read_sources(
    sections: Iterable[tuple[str, Mapping[str, Any]]], resolver: Resolver, faults: list[str]
) -> dict[str, SourceSettings]:
    """Parse every source; those with a fault are left out.

    Args:
        sections: by name.
        resolver: reads references in their values.
        faults: gets one sentence for each fault.
    """
    sources = {}
    for name, section in sections:
        label = f"sources.{safe(name)}"
        if not _NAME.fullmatch(name):
            faults.append(f"{label}: expected a name of 1 to 32 characters from a-z, 0-9, _ and -")
            continue
        values = {
            key: resolver.resolve(f"{label}.{safe(key)}", value, faults, many=key == "secrets")
            for key, value in section.items()
        }
        try:
            found = SourceSettings.model_validate(values)
        except ValidationError as error:
            faults.extend(_faults(label, values, error))
            continue
        sources[name] = found
        if name == WAVESPEED and found.use != "wavespeed":
            faults.append(
                f'{label}.use = {found.use!r}: the name belongs to use = "wavespeed"; '
                "choose another name"
            )
        if name != WAVESPEED and found.use == "wavespeed" and not found.secrets:
            faults.append(f"{label}: expected secrets: one or more whsec_…")
    return sources


def _faults(label: str, values: Mapping[str, Any], error: ValidationError) -> Iterator[str]:
    fields = SourceSettings.model_fields
    for fault in error.errors(include_url=False, include_input=False):
        key = str(fault["loc"][0]) if fault["loc"] else ""
        cause = fault.get("ctx", {}).get("error")
        reason = str(cause) if isinstance(cause, ValueError) else ""
        if not key:
            yield f"{label}: {reason}"
        elif key not in fields:
            yield f"{label}.{safe(key)}: there is no such key{suggest(key, fields)}"
        elif fault["type"] == "missing":
            yield f"{label}.{key}: it is missing; expected {fields[key].description}"
        elif values[key] is not None:  # None: the reference has a fault of its own
            value = MASK if key == "secrets" else shown(values[key])
            yield f"{label}.{key} = {value}: {reason or f'expected {fields[key].description}'}"

"""Settings of handlers: reading a section, references to secrets, and faults as sentences.

The factory of your own handler may use `read`:

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid")
        url: str = Field(repr=False)        # repr=False: never shown in a fault

    def create(name, settings):
        return MyHandler(read(Settings, name, settings))
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from receiver.errors import SettingsError
from receiver.handlers.base import Handler, Installed
from receiver.handlers.retry import Backoff
from receiver.handlers.routing import Route
from receiver.outbound.addresses import AllowList
from receiver.secret_refs import fetch
from submitter.errors import suggest
from submitter.units import per_second, seconds, size

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
"""A handler's name: it is part of keys, headers, metrics and links."""

NAME_EXPECTED = "a name of 1 to 64 letters, digits, _ . or -, the first a letter or digit"


def _listed(value: object) -> object:
    """A list of one for one text."""
    return (value,) if isinstance(value, str) else value


def _some(texts: tuple[str, ...]) -> tuple[str, ...]:
    if not texts:
        raise ValueError("at least one")
    return texts


Seconds = Annotated[float, BeforeValidator(seconds)]
"""A duration in a settings model."""

PositiveSeconds = Annotated[float, BeforeValidator(seconds), Field(gt=0)]
"""A duration that is not zero."""

PerSecond = Annotated[float, BeforeValidator(per_second)]
"""A rate in a settings model."""

Bytes = Annotated[int, BeforeValidator(size)]
"""A size in a settings model."""

Text = Annotated[str, Field(min_length=1)]

Texts = Annotated[tuple[Text, ...], BeforeValidator(_listed)]
"""One text or a list of them."""

SomeTexts = Annotated[Texts, AfterValidator(_some)]
"""One text or a list of at least one."""


def _allowed_targets(entries: tuple[str, ...]) -> tuple[str, ...]:
    AllowList.parse(entries)
    return entries


AllowedTargets = Annotated[Texts, AfterValidator(_allowed_targets)]
"""Private targets that a handler may call although the SSRF guard would refuse them."""


def matching(pattern: str, expected: str) -> AfterValidator:
    """Make the check of a text against a regular expression, with words for its fault.

    Args:
        pattern: for the whole text.
        expected: what the text must be, to follow "expected".
    """
    compiled = re.compile(pattern)

    def check(text: str) -> str:
        if not compiled.fullmatch(text):
            raise ValueError(expected)
        return text

    return AfterValidator(check)


class RetryRules(BaseModel):
    """The key `retry` of a handler's section."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    attempts: int = Field(default=Backoff().attempts, ge=1)
    base: Seconds = Backoff().base
    cap: Seconds = Backoff().cap


class DispatchRules(BaseModel):
    """The keys of a handler's section for the dispatcher; the rest are the handler's own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    on: SomeTexts = ("*",)
    models: SomeTexts = ("*",)
    sources: SomeTexts = ("*",)
    after: Texts = ()
    timeout: PositiveSeconds = 30.0
    concurrency: int = Field(default=16, ge=1)
    rate: PerSecond | None = None
    retry: RetryRules = RetryRules()

    def install(self, name: str, handle: Handler) -> Installed:
        """Put a handler under these rules."""
        return Installed(
            route=Route(name, self.on, self.models, self.sources, self.after),
            handle=handle,
            timeout=self.timeout,
            concurrency=self.concurrency,
            rate=self.rate,
            retry=Backoff(self.retry.attempts, self.retry.base, self.retry.cap),
            close=getattr(handle, "close", None),
            check=getattr(handle, "check", None),
        )


Model = TypeVar("Model", bound=BaseModel)

_MAX_SHOWN_CHARS = 80


class HiddenText(str):
    """Text from the environment or a file, whose repr does not show it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'…'"


def resolve(value: Any, key: str, faults: list[str]) -> Any:
    """Replace every `env:NAME`, `file:PATH` and `ssm:NAME` in a value, at any depth.

    Args:
        value: any TOML value.
        key: the setting's name, for the faults.
        faults: gets a sentence for each that cannot be read, without its value.
    """
    if isinstance(value, str):
        try:
            found = fetch(value, os.environ, Path())
        except ValueError as error:
            faults.append(f"{key}: {value!r}, {error}")
            return HiddenText()
        return value if found is None else HiddenText(found)
    if isinstance(value, Mapping):
        return {name: resolve(item, f"{key}.{name}", faults) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [resolve(item, f"{key}.{index}", faults) for index, item in enumerate(value)]
    return value


def read(model: type[Model], name: str, settings: Mapping[str, Any]) -> Model:
    """Check a handler's own settings.

    Args:
        model: the model of the settings.
        name: the handler's name.
        settings: its section, without the dispatcher's keys.

    Raises:
        SettingsError: with all faults.
    """
    try:
        return model.model_validate(dict(settings))
    except ValidationError as error:
        faults = [explain(f"handlers.{name}", fault, model) for fault in error.errors()]
    # Outside of `except`: the error that pydantic raised shows values.
    raise SettingsError(faults)


def explain(prefix: str, fault: ErrorDetails, model: type[BaseModel] | None = None) -> str:
    """Describe a pydantic error in one plain sentence: setting, value, what was expected.

    Args:
        prefix: the section's name.
        fault: one of pydantic's errors.
        model: the section's own model; the values of fields with `repr=False` are masked.
    """
    place = fault["loc"]
    key = ".".join((prefix, *(str(part) for part in place)))
    field = model.model_fields.get(str(place[0])) if model and place else None
    described = field.description if field else None
    if fault["type"] == "missing":
        return f"{key}: missing, expected {described or 'a value'}"
    if fault["type"] == "extra_forbidden":
        return f"{key}: unknown key, expected {_known_keys(place, model)}"
    reason = fault.get("ctx", {}).get("error")
    if not place and reason is not None:
        # A fault between settings: the whole section would be shown, its secrets too.
        return f"{key}: expected {reason}"
    # The keys of a table may be as private as its values.
    hidden = field is not None and not field.repr
    shown = "'…'" if hidden else _short(repr(fault["input"]))
    if hidden:
        key = f"{prefix}.{place[0]}"
    return f"{key}: {shown}, expected {reason or _expected(fault, described)}"


def _known_keys(place: tuple[int | str, ...], model: type[BaseModel] | None) -> str:
    known = {*DispatchRules.model_fields, "use"} if len(place) == 1 else set[str]()
    for part in place[:-1]:
        inner = model.model_fields[str(part)].annotation if model else None
        model = inner if isinstance(inner, type) and issubclass(inner, BaseModel) else None
    if model is None:
        return "a key from the handler's documentation"
    names = sorted({*known, *model.model_fields})
    return f"one of {', '.join(names)}{suggest(str(place[-1]), names)}"


_TYPES = {
    "bool": "true or false",
    "dict": "a table",
    "float": "a number",
    "int": "a whole number",
    "list": "a list",
    "mapping": "a table",
    "model": "a table",
    "string": "a text",
    "tuple": "a list",
}
"""Words of TOML for pydantic's names of types."""

_LIMITS = {
    "finite_number": "a finite number",
    "greater_than": "a number greater than {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "less_than": "a number less than {lt}",
    "less_than_equal": "a number of at most {le}",
    "literal_error": "{expected}",
    "string_too_long": "a text of at most {max_length} characters",
    "string_too_short": "a text of at least {min_length} characters",
    "too_long": "a list of at most {max_length}",
    "too_short": "a list of at least {min_length}",
}


def _expected(fault: ErrorDetails, described: str | None) -> str:
    kind, limits = fault["type"], fault.get("ctx", {})
    if kind == "string_pattern_mismatch":
        # A regular expression tells a person nothing.
        return described or "a text of the documented form"
    if kind == "string_too_short" and limits["min_length"] == 1:
        return "a text that is not empty"
    if kind in _LIMITS:
        return _LIMITS[kind].format(**limits)
    name, _, ending = kind.rpartition("_")
    if ending in ("type", "parsing") and name in _TYPES:
        return _TYPES[name]
    if kind == "int_from_float":
        return _TYPES["int"]
    message = fault["msg"].removeprefix("Input should be ").removeprefix("Input should ")
    return message[:1].lower() + message[1:]


def _short(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN_CHARS else f"{text[:_MAX_SHOWN_CHARS]}…"

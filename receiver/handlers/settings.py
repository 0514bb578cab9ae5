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
from submitter.suggest import suggest
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

Limit = Annotated[float, BeforeValidator(seconds), Field(gt=0)]
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


class RetryRules(BaseModel):
    """The key `retry` of a handler's section."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    attempts: int = Field(default=Backoff().attempts, ge=1)
    base: Seconds = Backoff().base
    cap: Seconds = Backoff().cap


class Rules(BaseModel):
    """The keys of a handler's section for the dispatcher; the rest are the handler's own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    on: SomeTexts = ("*",)
    models: SomeTexts = ("*",)
    sources: SomeTexts = ("*",)
    after: Texts = ()
    timeout: Limit = 30.0
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

_SHOWN = 80


class Hidden(str):
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
            return Hidden()
        return value if found is None else Hidden(found)
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
    """Say what is wrong with one setting in one sentence, secrets masked.

    Args:
        prefix: the section's name.
        fault: as pydantic tells it.
        model: the section's own model; fields with `repr=False` are not shown.
    """
    place = fault["loc"]
    key = ".".join((prefix, *(str(part) for part in place)))
    fields = model.model_fields if model else {}
    field = fields.get(str(place[0])) if place else None
    if fault["type"] == "missing":
        about = field.description if field and field.description else "a value"
        return f"{key}: missing, expected {about}"
    if fault["type"] == "extra_forbidden":
        return f"{key}: unknown key, expected {_one_of(str(place[-1]), fields, len(place))}"
    if not place and "error" in fault.get("ctx", {}):
        # A fault between settings: the whole section would be shown, its secrets too.
        return f"{key}: expected {fault['ctx']['error']}"
    # The keys of a table may be as private as its values.
    hidden = field is not None and not field.repr
    shown = "'…'" if hidden else _short(repr(fault["input"]))
    if hidden:
        key = f"{prefix}.{place[0]}"
    if "error" in fault.get("ctx", {}):
        return f"{key}: {shown}, expected {fault['ctx']['error']}"
    return f"{key}: {shown}, expected {_expected(fault['msg'])}"


def _one_of(key: str, fields: Mapping[str, Any], depth: int) -> str:
    if depth > 1 or not fields:
        return "a key that is documented"
    known = sorted({*fields, *Rules.model_fields, "use"})
    return f"one of {', '.join(known)}{suggest(key, known)}"


def _expected(message: str) -> str:
    for start in ("Input should be ", "Input should "):
        message = message.removeprefix(start)
    # Words of TOML, not of Python.
    message = message.replace("tuple", "list").replace("dictionary", "table")
    return message[:1].lower() + message[1:]


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"

"""The rules of running a handler, as a person writes them: durations, rates, globs, retries."""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from receiver.handlers.base import Handler, Installed
from receiver.retry import Backoff
from receiver.routing import Route

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
"""A handler's name: it stands in keys, headers, metrics and links."""

NAME_EXPECTED = "a name of 1 to 64 letters, digits, _ . or -, the first a letter or digit"

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?", re.ASCII)
_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*/\s*(s|m|h)", re.ASCII)
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(value: object) -> float:
    """Read a duration: `500ms`, `30s`, `2m`, `1h`, `7d`, or a number of seconds.

    Raises:
        ValueError: it is none; the text says what was expected.
    """
    number = _number(value)
    if number is None and isinstance(value, str) and (found := _DURATION.fullmatch(value.strip())):
        number = float(found[1]) * _UNITS[found[2] or "s"]
    if number is None or not math.isfinite(number) or number < 0:
        raise ValueError("a duration such as 500ms, 30s, 2m or 1h, or a number of seconds")
    return number


def per_second(value: object) -> float:
    """Read a rate: `1/s`, `30/m`, `100/h`, or a number a second.

    Raises:
        ValueError: it is none; the text says what was expected.
    """
    number = _number(value)
    if number is None and isinstance(value, str) and (found := _RATE.fullmatch(value.strip())):
        number = float(found[1]) / _UNITS[found[2]]
    if number is None or not math.isfinite(number) or number <= 0:
        raise ValueError("a rate such as 1/s, 30/m or 100/h, or a number a second")
    return number


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _listed(value: object) -> object:
    """Take one text for a list of one."""
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

Text = Annotated[str, Field(min_length=1)]

Texts = Annotated[tuple[Text, ...], BeforeValidator(_listed)]
"""One text or a list of them."""

SomeTexts = Annotated[Texts, AfterValidator(_some)]
"""One text or a list of at least one."""


class RetryRules(BaseModel):
    """The `retry` of a handler."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    attempts: int = Field(default=Backoff().attempts, ge=1)
    base: Seconds = Backoff().base
    cap: Seconds = Backoff().cap


class Rules(BaseModel):
    """The keys of a handler's section that are the dispatcher's; the rest are the handler's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    on: SomeTexts = ("*",)
    models: SomeTexts = ("*",)
    sources: SomeTexts = ("*",)
    after: Texts = ()
    timeout: Limit = 30.0
    concurrency: int = Field(default=16, ge=1)
    rate: PerSecond | None = None
    retry: RetryRules = RetryRules()

    def install(
        self, name: str, handle: Handler, close: Callable[[], Awaitable[None]] | None = None
    ) -> Installed:
        """Put a handler under these rules."""
        return Installed(
            route=Route(name, self.on, self.models, self.sources, self.after),
            handle=handle,
            timeout=self.timeout,
            concurrency=self.concurrency,
            rate=self.rate,
            retry=Backoff(self.retry.attempts, self.retry.base, self.retry.cap),
            close=close,
        )

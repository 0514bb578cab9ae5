"""The rules of running a handler, as a person writes them: durations, rates, globs, retries."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from receiver.handlers.base import Handler, Installed
from receiver.retry import Backoff
from receiver.routing import Route
from receiver.units import per_second, seconds

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
"""A handler's name: it stands in keys, headers, metrics and links."""

NAME_EXPECTED = "a name of 1 to 64 letters, digits, _ . or -, the first a letter or digit"


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

"""A topic, subject, routing key or stream's name as a template: `wavehook.{type}`.

| field | what stands there |
|---|---|
| `{type}` | the event's type, such as `prediction.completed`; its dots divide |
| `{source}` | the name of the source that verified it |
| `{model}` | the model, such as `kwaivgi_kling-v2_1-i2v-standard` |
| `{subject}` | the task id |

All four come from what was signed, or from the settings (F18). In a field, whatever is no letter,
digit, `-` or `_` becomes `_`, so that it can add no level and no wildcard; one that is not there
is `none`, and one of more than 64 characters ends in a digest (F17).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from string import Formatter

from receiver.event import Event

MAX_FIELD = 64
"""Characters of one field."""

EXAMPLE = Event(
    id="wavespeed:task:completed",
    source="wavespeed",
    type="prediction.completed",
    subject="task",
    model="kwaivgi/kling-v2.1-i2v-standard",
)
"""What `check` fills a template with."""

_DIGEST = 16
_OTHER = re.compile(r"[^A-Za-z0-9_-]")
_FIELDS: dict[str, Callable[[Event], str | None]] = {
    "type": lambda event: event.type,
    "source": lambda event: event.source,
    "model": lambda event: event.model,
    "subject": lambda event: event.subject,
}


@dataclass(frozen=True, slots=True)
class Form:
    """What a broker takes as a name.

    Attributes:
        divider: between two levels.
        legal: of the whole, once filled.
        limit: characters of the whole.
        words: what is expected, for a person.
    """

    divider: str
    legal: re.Pattern[str]
    limit: int
    words: str

    def check(self, text: str) -> str:
        """Give back a template that can only make legal names.

        Raises:
            ValueError: this one cannot; the text says what was expected.
        """
        topic = Topic(text, self)
        longest = topic.longest
        if not self.legal.fullmatch(topic.fill(EXAMPLE)) or longest > self.limit:
            raise ValueError(f"{self.words}, of at most {self.limit} characters once filled")
        return text


class Topic:
    """A template, read.

    Attributes:
        start: the fixed text that it begins with.
        fixed: it has no field, and is the same for every event.
        longest: characters of the longest name that it can make.

    Raises:
        ValueError: it is none; the text says what was expected.
    """

    def __init__(self, text: str, form: Form) -> None:
        try:
            parts = list(Formatter().parse(text))
        except ValueError:
            parts = [("", "", "", None)]
        if any(
            name is not None and (name not in _FIELDS or spec or conversion)
            for _, name, spec, conversion in parts
        ):
            known = ", ".join(f"{{{each}}}" for each in _FIELDS)
            raise ValueError(f"{form.words}; its fields can be {known}")
        self._parts = [(fixed, name) for fixed, name, _, _ in parts]
        self._divider = form.divider
        self.start = parts[0][0] if parts else ""
        self.fixed = all(name is None for _, name in self._parts)
        self.longest = sum(len(fixed) + (MAX_FIELD if name else 0) for fixed, name in self._parts)

    def fill(self, event: Event) -> str:
        """The name for an event."""
        made = ""
        for fixed, name in self._parts:
            made += fixed
            if name is not None:
                divider = self._divider if name == "type" else None
                made += _token(_FIELDS[name](event) or "", divider)
        return made


@lru_cache(maxsize=1024)
def _token(value: str, divider: str | None) -> str:
    """A field's text; with a divider its dots divide, and stand for it."""
    levels = [value] if divider is None else value.split(".")
    text = (divider or "").join(_OTHER.sub("_", level) for level in levels if level) or "none"
    if len(text) <= MAX_FIELD:
        return text
    digest = hashlib.sha256(value.encode(errors="surrogatepass")).hexdigest()[:_DIGEST]
    return f"{text[: MAX_FIELD - _DIGEST - 1].rstrip(divider or ' ')}_{digest}"

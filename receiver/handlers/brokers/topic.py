"""Templates of topics, subjects, routing keys and stream names, such as `wavehook.{type}`.

| field | value |
|---|---|
| `{type}` | the event's type, such as `prediction.completed`; its dots separate levels |
| `{source}` | the name of the source that verified the event |
| `{model}` | the model, such as `kwaivgi_kling-v2_1-i2v-standard` |
| `{subject}` | the task id |

All four were signed by the sender or are your own settings; the unsigned context is not offered.
In a value, every character but letters, digits, `-` and `_` becomes `_`, so that no value can add
a level or a wildcard. A missing value becomes `none`. A value of more than 64 characters is cut
and ends in a digest, so that two different ones stay different.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from string import Formatter

from receiver.event import Event

MAX_VALUE_CHARS = 64

EXAMPLE_EVENT = Event(
    id="wavespeed:task:completed",
    source="wavespeed",
    type="prediction.completed",
    subject="task",
    model="kwaivgi/kling-v2.1-i2v-standard",
)
"""Fills a template when it is checked."""

TEMPLATE_FIELDS: dict[str, Callable[[Event], str | None]] = {
    "type": lambda event: event.type,
    "source": lambda event: event.source,
    "model": lambda event: event.model,
    "subject": lambda event: event.subject,
}

_DIGEST_CHARS = 16
_REPLACED = re.compile(r"[^A-Za-z0-9_-]")


@dataclass(frozen=True, slots=True)
class TopicRules:
    """The names that a broker accepts.

    Attributes:
        separator: between two levels.
        pattern: of a whole name.
        max_chars: of a whole name.
        expected: what to write instead of a name that is not accepted.
    """

    separator: str
    pattern: re.Pattern[str]
    max_chars: int
    expected: str

    def check(self, text: str) -> str:
        """Return a template that only makes accepted names; for a settings model.

        Raises:
            ValueError: it can make another one; the text says what was expected.
        """
        template = TopicTemplate(text, self)
        name = template.fill(EXAMPLE_EVENT)
        if not self.pattern.fullmatch(name) or template.max_chars > self.max_chars:
            raise ValueError(f"{self.expected}, of at most {self.max_chars} characters once filled")
        return text


class TopicTemplate:
    """A parsed template.

    Attributes:
        prefix: the text before the first field.
        constant: there is no field, and the name is the same for every event.
        max_chars: of the longest name that it can make.

    Raises:
        ValueError: the text is not a template; the error says what was expected.
    """

    def __init__(self, text: str, rules: TopicRules) -> None:
        try:
            parts = list(Formatter().parse(text))
        except ValueError:
            parts = [("", "", "", None)]
        if any(
            name is not None and (name not in TEMPLATE_FIELDS or spec or conversion)
            for _, name, spec, conversion in parts
        ):
            known = ", ".join(f"{{{each}}}" for each in TEMPLATE_FIELDS)
            raise ValueError(f"{rules.expected}; its fields can be {known}")
        self._parts = [(literal, name) for literal, name, _, _ in parts]
        self._separator = rules.separator
        self.prefix = parts[0][0] if parts else ""
        self.constant = all(name is None for _, name in self._parts)
        self.max_chars = sum(
            len(literal) + (MAX_VALUE_CHARS if name else 0) for literal, name in self._parts
        )

    def fill(self, event: Event) -> str:
        """The name for an event."""
        filled = ""
        for literal, name in self._parts:
            filled += literal
            if name is not None:
                separator = self._separator if name == "type" else None
                filled += _level(TEMPLATE_FIELDS[name](event) or "", separator)
        return filled


@lru_cache(maxsize=1024)
def _level(value: str, separator: str | None) -> str:
    """A field's value without illegal characters; with a separator, its dots become separators."""
    levels = [value] if separator is None else value.split(".")
    text = (separator or "").join(_REPLACED.sub("_", level) for level in levels if level) or "none"
    if len(text) <= MAX_VALUE_CHARS:
        return text
    digest = hashlib.sha256(value.encode(errors="surrogatepass")).hexdigest()[:_DIGEST_CHARS]
    return f"{text[: MAX_VALUE_CHARS - _DIGEST_CHARS - 1].rstrip(separator or ' ')}_{digest}"

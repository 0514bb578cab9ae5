"""Names of archived files: a template, filled with what an event says, that cannot leave the root.

What comes out of an event is anybody's text. So every value becomes a part of one segment, of
ASCII letters, digits, `-`, `_` and `.`; a value that holds anything else, or is long, gets a
digest, so that different values stay different names. The segments that come out are no hidden
files, no `.` or `..`, no device of Windows, and none is longer than a file system takes (F36).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter

from receiver.event import Event
from receiver.handlers.envelope import moment
from submitter.prediction import JSON
from submitter.submit.files import Kind

OF_EVENTS = ("date", "task", "model", "source")
OF_FILES = ("index", "ext", "sha256")

MAX_TEMPLATE = 200
"""Characters of a template; with the next three, a name stays below the 1024 that S3 takes."""
MAX_FIELDS = 8
MAX_VALUE = 64
MAX_SEGMENT = 200

_OTHERS = re.compile(r"[^A-Za-z0-9._-]")
_LITERAL = re.compile(r"[A-Za-z0-9 ._@+=,()/{}-]*")
# https://learn.microsoft.com/en-us/windows/win32/fileio/naming-a-file
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?: *\..*)?", re.IGNORECASE)
_MODEL_PARTS = 4


@dataclass(frozen=True, slots=True)
class Template:
    """A name with fields in braces, such as `{date}/{task}/{index}{ext}`.

    Attributes:
        text: as it was written.
        fields: the names in it.
    """

    text: str
    fields: frozenset[str]

    @classmethod
    def parse(cls, text: str, known: tuple[str, ...] = (*OF_EVENTS, *OF_FILES)) -> Template:
        """Read a template.

        Args:
            text: as a person wrote it.
            known: the fields that may stand in it, beside `context.KEY`.

        Raises:
            ValueError: it is none; the text says what was expected.
        """
        expected = "a relative path of plain names in ASCII, none of them . or .."
        if not _LITERAL.fullmatch(re.sub(r"\{[^{}]*\}", "", text)):
            raise ValueError(expected)
        fields = _fields(text, known)
        if len(text) > MAX_TEMPLATE or len(fields) > MAX_FIELDS:
            raise ValueError(f"{MAX_TEMPLATE} characters and {MAX_FIELDS} fields at most")
        template = cls(text, frozenset(fields))
        if template.fill(dict.fromkeys(fields, "x")) != re.sub(r"\{[^}]*\}", "x", text):
            raise ValueError(expected)
        return template

    def fill(self, values: Mapping[str, str]) -> str:
        """The name; `values` as `of_event` and a file give them."""
        parts = Formatter().parse(self.text)
        name = "".join(text + (values[field] if field else "") for text, field, *_ in parts)
        return "/".join(map(_segment, name.split("/")))


@dataclass(frozen=True, slots=True)
class Name:
    """What one output is to be called.

    Attributes:
        template: its fields.
        values: those that are known before a byte has come: all but `ext` and `sha256`.
    """

    template: Template
    values: Mapping[str, str]

    def early(self, kind: Kind) -> str | None:
        """The name, where it does not take all of the content to know it."""
        return None if "sha256" in self.template.fields else self.final(kind, "")

    def final(self, kind: Kind, sha256: str) -> str:
        """The name of this content."""
        found = {"ext": f".{kind.name}", "sha256": sha256}
        return self.template.fill({**self.values, **found})


def of_event(template: Template, event: Event) -> dict[str, str]:
    """The values of a template's fields that an event has; `_` for one that it does not have."""
    values = {
        "date": moment(event.occurred_at or event.received_at).partition("T")[0],
        "task": _value(event.subject or "_"),
        "source": _value(event.source),
        "model": "/".join(map(_value, (event.model or "_").split("/", _MODEL_PARTS - 1))),
    }
    for field in template.fields:
        if field.startswith("context."):
            values[field] = _value(_in_context(event.context, field.split(".")[1:]))
    return values


def _fields(text: str, known: tuple[str, ...]) -> list[str]:
    expected = f"fields in braces, of {', '.join(known)} and context.KEY"
    try:
        found = [part[1:] for part in Formatter().parse(text)]
    except ValueError:
        raise ValueError(expected) from None
    fields = []
    for field, spec, conversion in found:
        if field is None:
            continue
        in_context = re.fullmatch(r"context(\.[^.{}\[\]]+)+", field)
        if spec or conversion or not (field in known or in_context):
            raise ValueError(expected)
        fields.append(field)
    return fields


def _in_context(value: JSON, keys: list[str]) -> str:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    usable = isinstance(value, str | int | float) and not isinstance(value, bool)
    return str(value) or "_" if usable else "_"


def _value(text: str) -> str:
    """What may stand in a segment of a name, different for different texts."""
    kept = _OTHERS.sub("_", text[:MAX_VALUE])
    return kept if kept == text else f"{kept}-{_digest(text)}"


def _segment(text: str) -> str:
    """One segment of a name, made harmless for every file system."""
    if len(text) > MAX_SEGMENT:
        # The last characters hold the ending, which programs look at.
        text = f"{text[: MAX_SEGMENT - 32]}-{_digest(text)}{text[-16:]}"
    text = re.sub(r"^[. ]|[. ]$", "_", text) or "_"
    return f"_{text}" if _DEVICE.fullmatch(text) else text


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]

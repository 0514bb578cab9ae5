"""Names of archived files: a template filled with fields of an event, which stays below the root.

Fields of an event are untrusted text. Every value becomes part of one segment of ASCII letters,
digits, `-`, `_` and `.`. A value with other characters, or a long one, gets a digest, so that
different values give different names. No segment is a hidden file, `.`, `..` or a Windows device,
or longer than a file system allows.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter

from receiver.event import Event
from receiver.handlers.envelope import lookup
from submitter.prediction import JSON
from submitter.submit.files import FileType
from submitter.timestamps import rfc3339_clamped

EVENT_FIELDS = ("date", "task", "model", "source")
FILE_FIELDS = ("index", "ext", "sha256")

MAX_TEMPLATE_CHARS = 200
"""Longest template. With the next three limits, a name stays below the 1024 bytes of S3."""
MAX_FIELDS = 8
MAX_VALUE_CHARS = 64
MAX_SEGMENT_CHARS = 200

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
_LITERAL = re.compile(r"[A-Za-z0-9 ._@+=,()/{}-]*")
# https://learn.microsoft.com/en-us/windows/win32/fileio/naming-a-file
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?: *\..*)?", re.IGNORECASE)
_MAX_MODEL_SEGMENTS = 4


@dataclass(frozen=True, slots=True)
class NameTemplate:
    """A name with fields in braces, such as `{date}/{task}/{index}{ext}`.

    Attributes:
        text: the template.
        fields: names of its fields.
    """

    text: str
    fields: frozenset[str]

    @classmethod
    def parse(
        cls, text: str, known: tuple[str, ...] = (*EVENT_FIELDS, *FILE_FIELDS)
    ) -> NameTemplate:
        """Parse a template.

        Args:
            text: the template.
            known: allowed fields, besides `context.KEY`.

        Raises:
            ValueError: it is not valid; the text says what was expected.
        """
        expected = "a relative path of plain names in ASCII, none of them . or .."
        if not _LITERAL.fullmatch(re.sub(r"\{[^{}]*\}", "", text)):
            raise ValueError(expected)
        fields = _fields(text, known)
        if len(text) > MAX_TEMPLATE_CHARS or len(fields) > MAX_FIELDS:
            raise ValueError(f"{MAX_TEMPLATE_CHARS} characters and {MAX_FIELDS} fields at most")
        template = cls(text, frozenset(fields))
        if template.fill(dict.fromkeys(fields, "x")) != re.sub(r"\{[^}]*\}", "x", text):
            raise ValueError(expected)
        return template

    def fill(self, values: Mapping[str, str]) -> str:
        """Fill in the fields; `values` has one for each."""
        parts = Formatter().parse(self.text)
        name = "".join(text + (values[field] if field else "") for text, field, *_ in parts)
        return "/".join(map(_segment, name.split("/")))


@dataclass(frozen=True, slots=True)
class OutputName:
    """Final name of one output.

    Attributes:
        template: the template.
        values: fields that are known before the download: all but `ext` and `sha256`.
    """

    template: NameTemplate
    values: Mapping[str, str]

    def early(self, kind: FileType) -> str | None:
        """The name by the first bytes; None if it needs the digest of all."""
        return None if "sha256" in self.template.fields else self.final(kind, "")

    def final(self, kind: FileType, sha256: str) -> str:
        """The name by the complete content."""
        found = {"ext": f".{kind.name}", "sha256": sha256}
        return self.template.fill({**self.values, **found})


def event_values(template: NameTemplate, event: Event) -> dict[str, str]:
    """Values of a template's fields in an event; `_` for a missing one."""
    values = {
        "date": rfc3339_clamped(event.occurred_at or event.received_at).partition("T")[0],
        "task": _value(event.subject or "_"),
        "source": _value(event.source),
        "model": "/".join(map(_value, (event.model or "_").split("/", _MAX_MODEL_SEGMENTS - 1))),
    }
    for field in template.fields:
        if field.startswith("context."):
            values[field] = _value(_text(lookup(event.context, field.partition(".")[2])))
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


def _text(value: JSON) -> str:
    usable = isinstance(value, str | int | float) and not isinstance(value, bool)
    return str(value) or "_" if usable else "_"


def _value(text: str) -> str:
    """A safe value for a segment, different for different texts."""
    kept = _UNSAFE.sub("_", text[:MAX_VALUE_CHARS])
    return kept if kept == text else f"{kept}-{_digest(text)}"


def _segment(text: str) -> str:
    """A segment that is safe on every file system."""
    if len(text) > MAX_SEGMENT_CHARS:
        # The last characters have the file extension, which programs read.
        text = f"{text[: MAX_SEGMENT_CHARS - 32]}-{_digest(text)}{text[-16:]}"
    text = re.sub(r"^[. ]|[. ]$", "_", text) or "_"
    return f"_{text}" if _DEVICE.fullmatch(text) else text


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]

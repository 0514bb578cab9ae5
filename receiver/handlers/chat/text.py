"""Untrusted text and URLs, made safe to show in a chat message.

Prompts, errors, model names and ids are untrusted. They are made inert in two steps: `clean` makes
one printable line for all services, and then each service escapes its own markup, or puts the text
into an element without markup. `link` accepts a URL that no service's markup can break out of.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import quote

import httpx

from receiver.errors import Refused
from receiver.outbound.client import check_url

Cost = Callable[[str], int]
"""Number of units of a service's limit that a text takes."""

MORE_LINE_UNITS = 20
"""Units reserved for the line with the number of outputs that are not shown."""

_WIDE = str.maketrans({mark: chr(ord(mark) + 0xFEE0) for mark in "@<>[]()*_`~|#&\\{}$"})


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a message.

    Attributes:
        text: the text.
        foreign: True for untrusted text, which is escaped; False for the operator's own.
    """

    text: str
    foreign: bool = False


def units(text: str) -> int:
    """Length in UTF-16 code units, as Telegram counts; at least the number of characters.

    https://core.telegram.org/bots/api#messageentity
    """
    return len(text) + sum(letter > "\uffff" for letter in text)


def clean(text: str, limit: int) -> str:
    """Turn a text into one printable line of at most `limit` UTF-16 units.

    Control, bidirectional and zero-width characters become spaces, as line breaks do.
    """
    line = "".join(c if c.isprintable() else " " for c in text[: limit * 4])
    return cut(" ".join(line.split()), limit)


def cut(text: str, limit: int, count: Cost = units) -> str:
    """Truncate a text, with an ellipsis; never inside a character or its escape.

    Args:
        text: not yet escaped.
        limit: in the units of `count`.
        count: length of the text as sent; at least one unit per character.
    """
    if len(text) <= limit and count(text) <= limit:
        return text
    left = limit - count("…")
    end = 0
    for end, letter in enumerate(text):  # noqa: B007 - `end` is the result
        left -= count(letter)
        if left < 0:
            break
    return text[:end].rstrip() + "…" if limit >= count("…") else ""


def cost(escape: Callable[[str], str]) -> Cost:
    """Count the units of a text after its escaping."""
    return lambda text: units(escape(text))


def fullwidth(text: str) -> str:
    """Replace characters of markup, mentions and links with their fullwidth forms.

    For services without an escape syntax.
    """
    return text.translate(_WIDE).replace("://", "\N{FULLWIDTH COLON}//")


def join(spans: Iterable[Span], escape: Callable[[str], str], limit: int) -> str:
    """Join spans into one text, the foreign ones escaped, up to a limit in UTF-16 units."""
    parts: list[str] = []
    for span in spans:
        write = escape if span.foreign else str
        shown = cut(span.text, limit, cost(write))
        parts.append(write(shown))
        if shown != span.text:
            break
        limit -= units(parts[-1])
    return "".join(parts).strip()


def choose_lines(lines: Sequence[tuple[int, int]], limit: int) -> list[int]:
    """Choose the lines that fit into a limit; returns their indexes in order.

    Args:
        lines: rank and size of each; rank 0 is chosen first.
        limit: of the sum of sizes.
    """
    kept = []
    for index, (_, taken) in sorted(enumerate(lines), key=lambda each: each[1][0]):
        if taken <= limit:
            kept.append(index)
            limit -= taken
    return sorted(kept)


def fit_lines(lines: Sequence[tuple[int, str]], last: Sequence[str], more: int, limit: int) -> str:
    """Join the lines that fit into one text, and add the number of outputs that are left out.

    Args:
        lines: each with its rank for `choose_lines`.
        last: lines of outputs, which follow; their rank is 1.
        more: number of outputs without a line.
        limit: in UTF-16 units.
    """
    every = [*lines, *((1, line) for line in last)]
    kept = choose_lines([(rank, units(line) + 1) for rank, line in every], limit - MORE_LINE_UNITS)
    more += len(last) - sum(index >= len(lines) for index in kept)
    shown = [every[index][1] for index in kept]
    return "\n".join([*shown, f"and {more} more"] if more else shown)


MAX_LINK_CHARS = 2000
"""Longest URL that is linked; every service accepts this length."""

_HOST_AND_PORT = re.compile(r"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]+)?")
_UNSAFE = re.compile(r"[^A-Za-z0-9._~:/?#@!$&+,;=%-]")


class Link(str):
    """A URL that is safe in any markup: visible ASCII without quotes, brackets or pipes."""

    __slots__ = ()


def link(url: str) -> Link | None:
    """Parse a URL; None if a person should not or cannot open it."""
    try:
        parsed = httpx.URL(url)
        check_url(parsed)
    except (httpx.InvalidURL, Refused):
        return None
    netloc = parsed.netloc.decode("ascii")
    if not _HOST_AND_PORT.fullmatch(netloc):
        return None
    # A fragment is not sent to the server, and is left out.
    path = _UNSAFE.sub(lambda found: quote(found[0]), parsed.raw_path.decode("ascii"))
    text = f"{parsed.scheme}://{netloc}{path}"
    return Link(text) if len(text) <= MAX_LINK_CHARS else None


def ending(url: str) -> str:
    """File extension in a URL, in lower case, such as `mp4`."""
    path = url.partition("?")[0].partition("#")[0]
    return path.rpartition("/")[2].rpartition(".")[2].lower()

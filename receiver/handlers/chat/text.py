"""Text of others, made fit to be shown: one line, printable, and cut where a service counts.

Prompts, errors, model names and ids come from strangers. What would act in a chat is taken from
them in two steps: `clean` here, for all services alike, and each service's own escaping, or a
place where it reads no markup (F17).

URLs of results, made fit to stand in any service's markup.
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
"""How many units of a service's limit a text takes."""

MORE = 20
"""Units of the line that says how many are not shown."""

_WIDE = str.maketrans({mark: chr(ord(mark) + 0xFEE0) for mark in "@<>[]()*_`~|#&\\{}$"})


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a message.

    Attributes:
        text: what it says.
        foreign: it is somebody else's, and must not act; else it is the operator's own.
    """

    text: str
    foreign: bool = False


def units(text: str) -> int:
    """UTF-16 code units: what Telegram counts in, and never fewer than there are characters.

    https://core.telegram.org/bots/api#messageentity
    """
    return len(text) + sum(letter > "\uffff" for letter in text)


def clean(text: str, limit: int) -> str:
    """Make one printable line of a text, of at most `limit` UTF-16 units.

    Control, bidirectional and zero-width characters become spaces, as line breaks do.
    """
    line = "".join(c if c.isprintable() else " " for c in text[: limit * 4])
    return cut(" ".join(line.split()), limit)


def cut(text: str, limit: int, count: Cost = units) -> str:
    """Shorten a text to a limit, an ellipsis included; never inside a character or its escape.

    Args:
        text: not escaped yet.
        limit: in what `count` counts.
        count: of the text as it will be sent; at least one unit a character.
    """
    if len(text) <= limit and count(text) <= limit:
        return text
    left = limit - count("…")
    end = 0
    for end, letter in enumerate(text):  # noqa: B007 - where it stops is what is looked for
        left -= count(letter)
        if left < 0:
            break
    return text[:end].rstrip() + "…" if limit >= count("…") else ""


def cost(escape: Callable[[str], str]) -> Cost:
    """What a text takes once it is escaped."""
    return lambda text: units(escape(text))


def fullwidth(text: str) -> str:
    """Write what is markup or a mention somewhere with the wide letters that look alike.

    For services that know no escaping. A URL is no link any more either.
    """
    return text.translate(_WIDE).replace("://", "\N{FULLWIDTH COLON}//")


def join(spans: Iterable[Span], escape: Callable[[str], str], limit: int) -> str:
    """Put spans into one text, the foreign ones escaped, cut to a limit in UTF-16 units."""
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
    """Which lines to keep where not all fit, by their places in order.

    Args:
        lines: of each its rank, where 0 is kept first, and what it takes of the limit.
        limit: of all together.
    """
    kept = []
    for place, (_, taken) in sorted(enumerate(lines), key=lambda each: each[1][0]):
        if taken <= limit:
            kept.append(place)
            limit -= taken
    return sorted(kept)


def fit_lines(lines: Sequence[tuple[int, str]], last: Sequence[str], more: int, limit: int) -> str:
    """Put lines into one text, as far as they fit, and say how many of the last ones do not.

    Args:
        lines: each with its rank; see `fitting`.
        last: what follows them, of rank 1.
        more: how many of the last are not even among them.
        limit: in UTF-16 units.
    """
    every = [*lines, *((1, line) for line in last)]
    kept = choose_lines([(rank, units(line) + 1) for rank, line in every], limit - MORE)
    more += len(last) - sum(place >= len(lines) for place in kept)
    shown = [every[place][1] for place in kept]
    return "\n".join([*shown, f"and {more} more"] if more else shown)


MAX_LINK = 2000
"""Characters; every service takes a URL of this length, and no longer one is linked."""

_PLACE = re.compile(r"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]+)?")
_UNSAFE = re.compile(r"[^A-Za-z0-9._~:/?#@!$&+,;=%-]")


class Link(str):
    """A URL that no markup can be broken out of: visible ASCII, no quotes, brackets or pipes."""

    __slots__ = ()


def link(url: str) -> Link | None:
    """Read a URL; None where it is none for a person to open."""
    try:
        parsed = httpx.URL(url)
        check_url(parsed)
    except (httpx.InvalidURL, Refused):
        return None
    place = parsed.netloc.decode("ascii")
    if not _PLACE.fullmatch(place):
        return None
    # A fragment says nothing to a server.
    path = _UNSAFE.sub(lambda found: quote(found[0]), parsed.raw_path.decode("ascii"))
    text = f"{parsed.scheme}://{place}{path}"
    return Link(text) if len(text) <= MAX_LINK else None


def ending(url: str) -> str:
    """The ending of the file that a URL names, in lower case, such as `mp4`."""
    path = url.partition("?")[0].partition("#")[0]
    return path.rpartition("/")[2].rpartition(".")[2].lower()

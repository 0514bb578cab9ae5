"""A message as Telegram's text and entities.

Without a `parse_mode` Telegram reads no markup, but still looks for mentions, commands, links and
the like; not inside of code, where all that is somebody else's stands. Entities are counted in
UTF-16 units: https://core.telegram.org/bots/api#messageentity
"""

from __future__ import annotations

from typing import Any, NamedTuple

from receiver.handlers.chat.message import Message
from receiver.handlers.chat.text import MORE, Span, cut, fitting, units

MAX_TEXT = 4096
"""Units of a message. https://core.telegram.org/bots/api#sendmessage"""

MAX_CAPTION = 1024
"""Units of a picture's or video's text. https://core.telegram.org/bots/api#inputmediavideo"""


class _Part(NamedTuple):
    """A piece of a line, with the type of its entity."""

    text: str
    type: str | None = None
    url: str | None = None


def written(
    message: Message, words: list[Span] | None, limit: int
) -> tuple[str, list[dict[str, Any]]]:
    """The text and its entities.

    Args:
        message: what it says.
        words: its text by the operator's template, which is plain text here; None: ours.
        limit: in UTF-16 units.
    """
    headline = _Part(cut(message.headline, 200), "bold")
    notes = [(1, [_Part(note, "code")]) for note in message.notes]
    own = _by_template(words, limit // 2) if words else []
    if own:
        lines = [(0, [headline]), (0, own), *notes]
        return _put([line for _, line in _fitted(lines, limit)])
    lines = [(0, [headline])]
    if message.prompt:
        lines.append((3, [_Part(cut(message.prompt, limit // 2), "code")]))
    lines += [(2, [_Part(f"{name}: "), _Part(value, "code")]) for name, value in message.facts]
    lines += notes
    outputs = [
        (1, [_Part(each.label, "text_link", each.url), _Part(f" ({each.fate})")])
        if each.url
        else (1, [_Part(f"{each.label}: {each.fate}")])
        for each in message.outputs
    ]
    kept = _fitted([*lines, *outputs], limit - MORE)
    left = sum(line in outputs for line in kept)
    more = message.more + len(outputs) - left
    shown = [line for _, line in kept]
    return _put([*shown, [_Part(f"and {more} more")]] if more else shown)


def _by_template(words: list[Span], limit: int) -> list[_Part]:
    parts = []
    for span in words:
        text = cut(span.text, limit)
        parts.append(_Part(text, "code" if span.foreign else None))
        if text != span.text:
            break
        limit -= units(text)
    # Telegram takes white space off the end, and with it what entities are counted by.
    while parts and not parts[-1].text.strip():
        parts.pop()
    return parts


def _fitted(lines: list[tuple[int, list[_Part]]], limit: int) -> list[tuple[int, list[_Part]]]:
    costs = [(rank, sum(units(part.text) for part in line) + 1) for rank, line in lines]
    return [lines[place] for place in fitting(costs, limit)]


def _put(lines: list[list[_Part]]) -> tuple[str, list[dict[str, Any]]]:
    text, offset = "", 0
    entities: list[dict[str, Any]] = []
    for number, line in enumerate(lines):
        for part in [_Part("\n"), *line] if number else line:
            length = units(part.text)
            if part.type and part.text.strip():
                link = {"url": part.url} if part.url else {}
                entities.append({"type": part.type, "offset": offset, "length": length, **link})
            text += part.text
            offset += length
    return text, entities

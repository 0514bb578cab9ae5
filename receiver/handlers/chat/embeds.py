"""A message as Discord's embeds.

Limits: https://discord.com/developers/docs/resources/message#embed-object-embed-limits
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from receiver.handlers.chat.message import Message
from receiver.handlers.chat.text import Span, cost, cut, join, put, units

_ACTING = re.compile(r"[\\*_~`|<>#\[\]():@+-]")
_TITLE, _DESCRIPTION, _VALUE, _TOTAL, _EMBEDS = 256, 4096, 1024, 6000, 10
_COLOURS = {True: 0x2EB67D, False: 0xE01E5A, None: 0x7F8C8D}


def payload(
    message: Message, words: list[Span] | None, uploaded: Collection[str] = ()
) -> dict[str, Any]:
    """What Discord is sent.

    Args:
        message: what it says.
        words: its text by the operator's template, in Discord's Markdown; None: ours.
        uploaded: labels of the outputs that the message has as attachments.
    """
    embed: dict[str, Any] = {
        "title": cut(message.headline, _TITLE),
        "color": _COLOURS[message.good],
        "footer": {"text": f"Task {message.task}"},
    }
    used = units(embed["title"]) + units(embed["footer"]["text"])
    text = join(words, escape, _DESCRIPTION) if words else ""
    if not text:
        embed["fields"] = [
            {"name": name, "value": cut_escaped(value, _VALUE), "inline": units(value) <= 40}
            for name, value in message.facts
        ]
        used += sum(units(each["name"]) + units(each["value"]) for each in embed["fields"])
    description = _description(message, text, min(_DESCRIPTION, _TOTAL - used))
    if description:
        embed["description"] = description
    pictures = [
        {"url": each.url}
        for each in message.outputs
        if each.kind == "image" and each.url and each.label not in uploaded
    ]
    if pictures:
        embed["image"] = pictures[0]
    others = [{"image": each} for each in pictures[1:_EMBEDS]]
    # Nothing in a message of ours calls anybody.
    return {"embeds": [embed, *others], "allowed_mentions": {"parse": []}}


def escape(text: str) -> str:
    """Make text inert in Discord's Markdown, where a backslash takes the meaning of any mark."""
    return _ACTING.sub(r"\\\g<0>", text)


def cut_escaped(text: str, limit: int) -> str:
    """Escape, and cut to a limit, not inside an escape."""
    return escape(cut(text, limit, cost(escape)))


def _description(message: Message, text: str, limit: int) -> str:
    notes = [(0, escape(note)) for note in message.notes]
    if text:
        limit -= sum(units(note) + 1 for _, note in notes)
        return "\n".join([join([Span(text)], str, limit), *(note for _, note in notes)])
    lines = [(0, f"> {escape(message.prompt)}")] if message.prompt else []
    outputs = [
        f"[{each.label}]({each.url}) ({each.fate})" if each.url else f"{each.label}: {each.fate}"
        for each in message.outputs
    ]
    return put([*lines, *notes], outputs, message.more, limit)

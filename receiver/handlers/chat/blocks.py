"""Message in Slack's blocks; extra `slack`.

Untrusted text is in rich text and plain text elements, in which Slack reads no markup: no mention,
no link, no emoji. Limits: https://docs.slack.dev/reference/block-kit/blocks
"""

from __future__ import annotations

from typing import Any

from slack_sdk.models.blocks import (
    Block,
    HeaderBlock,
    ImageBlock,
    MarkdownTextObject,
    PlainTextObject,
    RichTextBlock,
    RichTextElementParts,
    RichTextQuoteElement,
    RichTextSectionElement,
    SectionBlock,
)
from slack_sdk.models.blocks.block_elements import RichTextElement

from receiver.handlers.chat.message import Message
from receiver.handlers.chat.text import Span, cut, fullwidth, join

_Text, _Link = RichTextElementParts.Text, RichTextElementParts.Link
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_MAX_HEADER, _MAX_SECTION, _MAX_ALT = 150, 3000, 2000


def payload(message: Message, template_spans: list[Span] | None, *, images: bool) -> dict[str, Any]:
    """Request body for Slack, without the channel.

    Args:
        message: the message.
        template_spans: text of the operator's template, in mrkdwn; None for the standard text.
        images: show pictures, which Slack downloads itself.
    """
    return {
        "text": summary(message),
        "blocks": [each.to_dict() for each in _blocks(message, template_spans, images=images)],
        "mrkdwn": False,
        "unfurl_links": False,
        "unfurl_media": False,
    }


def summary(message: Message) -> str:
    """Text of the notification, escaped."""
    text = f"{message.headline}: {message.model}" if message.model else message.headline
    return escape(cut(text, _MAX_HEADER))


def escape(text: str) -> str:
    """Make text inert in mrkdwn.

    https://docs.slack.dev/messaging/formatting-message-text#escaping
    Slack has no escape for its own marks, so they become fullwidth characters.
    """
    return "".join(
        _ENTITIES.get(each) or (fullwidth(each) if each in "*_~`" else each) for each in text
    )


def _blocks(message: Message, template_spans: list[Span] | None, *, images: bool) -> list[Block]:
    blocks: list[Block] = [HeaderBlock(text=_plain(message.headline, _MAX_HEADER))]
    text = join(template_spans, escape, _MAX_SECTION) if template_spans else ""
    if text:
        blocks.append(SectionBlock(text=MarkdownTextObject(text=text, verbatim=True)))
    else:
        blocks += _standard(message)
    if message.notes:
        blocks.append(_lines([[_Text(text=note)] for note in message.notes]))
    if images:
        blocks += [
            ImageBlock(image_url=each.url, alt_text=cut(message.prompt or each.label, _MAX_ALT))
            for each in message.outputs
            if each.kind == "image" and each.url
        ]
    return blocks


def _standard(message: Message) -> list[Block]:
    blocks: list[Block] = []
    if message.prompt:
        quote = RichTextQuoteElement(elements=[_Text(text=message.prompt)])
        blocks.append(RichTextBlock(elements=[quote]))
    lines: list[list[RichTextElement]] = [
        [_Text(text=f"{name}: ", style={"bold": True}), _Text(text=value)]
        for name, value in message.facts
    ]
    for output in message.outputs:
        if output.url:
            lines.append(
                [_Link(url=output.url, text=output.label), _Text(text=f" ({output.fate})")]
            )
        else:
            lines.append([_Text(text=f"{output.label}: {output.fate}")])
    if message.rest:
        lines.append([_Text(text=message.rest)])
    lines.append([_Text(text=f"Task {message.task}", style={"code": True})])
    blocks.append(_lines(lines))
    return blocks


def _lines(lines: list[list[RichTextElement]]) -> RichTextBlock:
    elements: list[RichTextElement] = []
    for number, line in enumerate(lines):
        elements += [_Text(text="\n"), *line] if number else line
    return RichTextBlock(elements=[RichTextSectionElement(elements=elements)])


def _plain(text: str, limit: int) -> PlainTextObject:
    return PlainTextObject(text=cut(text, limit), emoji=False)

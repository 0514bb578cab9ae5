"""A message as Slack's blocks; extra `slack`.

What is somebody else's stands in rich text and in plain text, where Slack reads no markup at all:
no mention, no link, no emoji. Limits: https://docs.slack.dev/reference/block-kit/blocks
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
_HEADER, _SECTION, _ALT = 150, 3000, 2000


def payload(message: Message, template_spans: list[Span] | None, *, images: bool) -> dict[str, Any]:
    """What Slack is sent, without the place.

    Args:
        message: what it says.
        template_spans: its text by the operator's template, in Slack's mrkdwn; None: ours.
        images: whether pictures are shown, which Slack fetches itself.
    """
    return {
        "text": summary(message),
        "blocks": [each.to_dict() for each in _blocks(message, template_spans, images=images)],
        "mrkdwn": False,
        "unfurl_links": False,
        "unfurl_media": False,
    }


def summary(message: Message) -> str:
    """What a notification shows; markup is read in it, and escaped."""
    said = f"{message.headline}: {message.model}" if message.model else message.headline
    return escape(cut(said, _HEADER))


def escape(text: str) -> str:
    """Make text inert in mrkdwn.

    https://docs.slack.dev/messaging/formatting-message-text#escaping
    It knows no escape for its own marks, so that these become the wide letters that look alike.
    """
    return "".join(
        _ENTITIES.get(each) or (fullwidth(each) if each in "*_~`" else each) for each in text
    )


def _blocks(message: Message, template_spans: list[Span] | None, *, images: bool) -> list[Block]:
    blocks: list[Block] = [HeaderBlock(text=_plain(message.headline, _HEADER))]
    text = join(template_spans, escape, _SECTION) if template_spans else ""
    if text:
        blocks.append(SectionBlock(text=MarkdownTextObject(text=text, verbatim=True)))
    else:
        blocks += _standard(message)
    if message.notes:
        blocks.append(_lines([[_Text(text=note)] for note in message.notes]))
    if images:
        blocks += [
            ImageBlock(image_url=each.url, alt_text=cut(message.prompt or each.label, _ALT))
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

"""`teams` handler: an Adaptive Card through a workflow's URL.

    [handlers.team]
    use = "teams"
    url = "env:TEAMS_URL"       # of the workflow "Send webhook alerts to a channel"

Pictures are shown from their links, and videos get a button: a workflow accepts no files. It
responds before it posts, and does not report what it could not post.

| response | outcome |
|---|---|
| 2xx | done |
| 429 or 503 with Retry-After | retry at that time; no event of this handler before |
| 5xx, a timeout, no connection | retry; the message may be sent twice |
| another 4xx | dead |

Untrusted text is in text runs, in which Teams reads no Markdown:
https://adaptivecards.io/explorer/TextRun.html. A card must not be larger than 28 KB:
https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/connectors-using
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from receiver.handlers.chat.base import HttpChannel, OutgoingMessage, parse_settings
from receiver.handlers.chat.http import check_webhooks, error_for
from receiver.handlers.chat.message import Message, Output
from receiver.handlers.chat.settings import ChatSettings, WebUrl
from receiver.handlers.chat.template import Template
from receiver.handlers.chat.text import Span, fullwidth, join
from receiver.handlers.settings import AllowedTargets
from receiver.outbound.client import web_url
from submitter.prediction import JSON

MAX_CARD_BYTES = 28_000
"""Largest request body."""

_MAX_BUTTONS = 6
_MAX_TEXT = 4000
_BRACES = re.compile(r"(?<=[{$])(?=\{)")


def payload(message: Message, template_spans: list[Span] | None) -> dict[str, Any]:
    """Request body for a workflow; outputs that would make it too large are only counted.

    Args:
        message: the message.
        template_spans: text of the operator's template, in the Markdown of Teams; None for the
            standard text.
    """
    shown = [each for each in message.outputs if each.url][:_MAX_BUTTONS]
    while True:
        made = _message(message, template_spans, shown)
        if not shown or len(json.dumps(made, ensure_ascii=False).encode()) <= MAX_CARD_BYTES:
            return made
        shown = shown[:-1]


def _message(
    message: Message, template_spans: list[Span] | None, shown: list[Output]
) -> dict[str, Any]:
    body: list[dict[str, Any]] = [
        _runs([{"text": message.headline, "size": "Large", "weight": "Bolder"}])
    ]
    text = join(template_spans, fullwidth, _MAX_TEXT) if template_spans else ""
    if text:
        body.append({"type": "TextBlock", "text": text, "wrap": True})
    else:
        body += _standard(message, shown)
    body += [_runs([{"text": note}]) for note in message.notes]
    body += [
        {"type": "Image", "url": each.url, "altText": each.label}
        for each in shown
        if each.kind == "image"
    ]
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": body,
        "actions": [
            {"type": "Action.OpenUrl", "title": each.label, "url": each.url} for each in shown
        ],
    }
    kind = "application/vnd.microsoft.card.adaptive"
    return {"type": "message", "attachments": [{"contentType": kind, "content": card}]}


def _standard(message: Message, shown: list[Output]) -> list[dict[str, Any]]:
    body = []
    if message.prompt:
        body.append(_runs([{"text": message.prompt, "italic": True}]))
    body += [
        _runs([{"text": f"{name}: ", "weight": "Bolder"}, {"text": value}])
        for name, value in message.facts
    ]
    # Outputs with a button, and outputs without a link.
    listed = [each for each in message.outputs if each in shown or each.url is None]
    body += [_runs([{"text": f"{each.label}: {each.fate}"}]) for each in listed]
    more = message.more + len(message.outputs) - len(listed)
    if more:
        body.append(_runs([{"text": f"and {more} more"}]))
    body.append(_runs([{"text": f"Task {message.task}", "size": "Small", "isSubtle": True}]))
    return body


def _runs(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """A paragraph; the syntax of card functions and templates is broken up with spaces."""
    inlines = [
        {"type": "TextRun", **each, "text": _BRACES.sub(" ", str(each["text"]))} for each in runs
    ]
    return {"type": "RichTextBlock", "inlines": inlines}


_GONE = "the workflow was deleted or is off; turn it on, or create a new one and set its URL"


class TeamsSettings(ChatSettings):
    """Settings of the handler."""

    url: WebUrl | None = Field(default=None, repr=False, description="the URL of a workflow")
    allow: AllowedTargets = ()


class Teams(HttpChannel[TeamsSettings]):
    """Handler that posts through workflows."""

    def __init__(
        self, settings: TeamsSettings, template: Template | None = None, **options: Any
    ) -> None:
        super().__init__(settings, settings.url, template, allow=settings.allow, **options)

    async def deliver(self, outgoing: OutgoingMessage) -> dict[str, JSON]:
        """Post the card."""
        card = payload(outgoing.message, outgoing.template_spans)
        answer = await self._http.send(
            "POST", outgoing.target, outgoing.deadline, rate_key=outgoing.target, body=card
        )
        if not answer.ok:
            gone = answer.status in (401, 403, 404, 410)
            raise error_for(answer, _GONE if gone else "Teams refuses the card")
        return {}

    async def check(self) -> str:
        """Connect to the host; a workflow itself can be tested by a message only."""
        return await check_webhooks(self._targets, self._settings.allow)


def create(name: str, settings: Mapping[str, Any]) -> Teams:
    """Build the handler.

    Raises:
        SettingsError: with all faults.
    """
    return Teams(
        *parse_settings(TeamsSettings, name, settings, target_key="url", check_target=web_url)
    )

"""`discord` handler: a message through a webhook, with the video or picture itself if it fits.

    [handlers.team]
    use = "discord"
    url = "env:DISCORD_URL"     # https://discord.com/api/webhooks/…; add ?thread_id=… for a thread
    upload = "10MiB"            # the server's limit; 0 uploads nothing

The text is sent first. Then the message is edited to include the files.

| response | outcome |
|---|---|
| 2xx | done; a failed upload leaves the link |
| 429 | retry when Discord allows it; no event of this handler before |
| 5xx, a timeout, no connection | retry; the message may be sent twice |
| another 4xx | dead |

Limits of embeds: https://discord.com/developers/docs/resources/message#embed-object-embed-limits
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

import httpx
from pydantic import Field

from receiver.handlers.chat.base import HttpChannel, OutgoingMessage, parse_settings
from receiver.handlers.chat.http import (
    ServiceResponse,
    bounded_seconds,
    error_for,
    retry_after_header,
)
from receiver.handlers.chat.media import multipart
from receiver.handlers.chat.message import Message, Output
from receiver.handlers.chat.settings import ChatSettings, WebUrl
from receiver.handlers.chat.template import Template
from receiver.handlers.chat.text import Span, clean, cost, cut, fit_lines, join, units
from receiver.handlers.settings import AllowedTargets, Bytes
from receiver.outbound.client import web_url
from submitter.prediction import JSON

_MARKUP = re.compile(r"[\\*_~`|<>#\[\]():@+-]")
_MAX_TITLE, _MAX_DESCRIPTION, _MAX_VALUE, _MAX_TOTAL, _MAX_EMBEDS = 256, 4096, 1024, 6000, 10
_COLOURS = {True: 0x2EB67D, False: 0xE01E5A, None: 0x7F8C8D}


def payload(
    message: Message, template_spans: list[Span] | None, uploaded: Collection[str] = ()
) -> dict[str, Any]:
    """Request body for Discord.

    Args:
        message: the message.
        template_spans: text of the operator's template, in Discord's Markdown; None for the
            standard text.
        uploaded: labels of the outputs that are attachments of the message.
    """
    embed: dict[str, Any] = {
        "title": cut(message.headline, _MAX_TITLE),
        "color": _COLOURS[message.good],
        "footer": {"text": f"Task {message.task}"},
    }
    used = units(embed["title"]) + units(embed["footer"]["text"])
    text = join(template_spans, escape, _MAX_DESCRIPTION) if template_spans else ""
    if not text:
        embed["fields"] = [
            {"name": name, "value": cut_escaped(value, _MAX_VALUE), "inline": units(value) <= 40}
            for name, value in message.facts
        ]
        used += sum(units(each["name"]) + units(each["value"]) for each in embed["fields"])
    description = _description(message, text, min(_MAX_DESCRIPTION, _MAX_TOTAL - used))
    if description:
        embed["description"] = description
    pictures = [
        {"url": each.url}
        for each in message.outputs
        if each.kind == "image" and each.url and each.label not in uploaded
    ]
    if pictures:
        embed["image"] = pictures[0]
    others = [{"image": each} for each in pictures[1:_MAX_EMBEDS]]
    # No mention in the message notifies anybody.
    return {"embeds": [embed, *others], "allowed_mentions": {"parse": []}}


def escape(text: str) -> str:
    """Escape text for Discord's Markdown, where a backslash escapes any mark."""
    return _MARKUP.sub(r"\\\g<0>", text)


def cut_escaped(text: str, limit: int) -> str:
    """Escape and truncate text, never inside an escape."""
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
    return fit_lines([*lines, *notes], outputs, message.more, limit)


_GONE = "the webhook does not exist any more; create a new one and set its URL"
_ADVICE = {
    10003: "the channel or thread does not exist any more; choose another",
    10008: "the message was deleted",
    10015: _GONE,
    40005: "the file is too large for the server; lower `upload`",
    50027: _GONE,
    50035: "Discord refuses a field of the message",
    220001: "a forum needs a thread; add ?thread_id=… to the URL",
}


class DiscordSettings(ChatSettings):
    """Settings of the handler."""

    url: WebUrl | None = Field(default=None, repr=False, description="the URL of a webhook")
    upload: Bytes = 10 * 1024**2
    allow: AllowedTargets = ()


class Discord(HttpChannel[DiscordSettings]):
    """Handler that posts through webhooks."""

    def __init__(
        self, settings: DiscordSettings, template: Template | None = None, **options: Any
    ) -> None:
        super().__init__(
            settings,
            settings.url,
            template,
            allow=settings.allow,
            upload=settings.upload,
            waits=waits,
            **options,
        )

    async def deliver(self, outgoing: OutgoingMessage) -> dict[str, JSON]:
        """Post the text, then add the files."""
        hook = httpx.URL(outgoing.target)
        answer = await self._http.send(
            "POST",
            # Otherwise the response does not have the message's id.
            str(hook.copy_set_param("wait", "true")),
            outgoing.deadline,
            rate_key=outgoing.target,
            body=payload(outgoing.message, outgoing.template_spans),
        )
        if not answer.ok:
            raise _failed(answer)
        id = answer.body.get("id")
        wanted = [each for each in outgoing.message.outputs if each.source]
        # The id becomes part of a URL's path.
        if not (isinstance(id, str) and id.isascii() and id.isdigit()):
            return {}
        result: dict[str, JSON] = {"message": id}
        if not (self._settings.upload and wanted):
            return result
        message = hook.copy_with(path=f"{hook.path.rstrip('/')}/messages/{id}")
        attached: dict[str, str] = {}
        failed: list[JSON] = []
        for output in wanted:
            work = partial(self._attach, outgoing, message, output, attached)
            error = await self._try(work, outgoing.deadline)
            failed += [f"{output.label}: {error}"] if error else []
        result["uploaded"] = len(attached)
        return result | {"not_uploaded": failed} if failed else result

    async def check(self) -> str:
        """Query the webhooks; nothing is posted.

        Raises:
            GiveUp: a webhook does not exist.
            Retry: Discord does not respond.
        """
        names = []
        for target in self._targets:
            answer = await self._http.send("GET", target, self._clock() + 10.0, rate_key=target)
            if not answer.ok:
                raise _failed(answer)
            names.append(clean(str(answer.body.get("name")), 80))
        return f"Discord knows the webhook as {', '.join(names)}"

    async def _attach(
        self,
        outgoing: OutgoingMessage,
        message: httpx.URL,
        output: Output,
        attached: dict[str, str],
    ) -> None:
        """Add one file to the message, and keep its other files.

        https://discord.com/developers/docs/resources/webhook#edit-webhook-message
        """
        left = outgoing.deadline - self._clock()
        async with self._media_reader.open(output.source or "", left) as media:
            name = output.file(media.kind.name)
            edit = payload(outgoing.message, outgoing.template_spans, {*attached, output.label})
            edit["attachments"] = [
                *({"id": each} for each in attached.values()),
                {"id": "0", "filename": name},
            ]
            fields = {"payload_json": json.dumps(edit)}
            headers, body = multipart(fields, "files[0]", name, media)
            answer = await self._http.stream(
                "PATCH",
                str(message),
                outgoing.deadline,
                rate_key=outgoing.target,
                content=body,
                headers=headers,
            )
        if not answer.ok:
            raise _failed(answer)
        kept = answer.body.get("attachments")
        last = kept[-1] if isinstance(kept, list) and kept else None
        attached[output.label] = str(last.get("id")) if isinstance(last, dict) else ""


def create(name: str, settings: Mapping[str, Any]) -> Discord:
    """Build the handler.

    Raises:
        SettingsError: with all faults.
    """
    return Discord(
        *parse_settings(DiscordSettings, name, settings, target_key="url", check_target=web_url)
    )


def waits(answer: ServiceResponse, now: float) -> float | None:
    """Seconds to wait: Discord reports an exhausted limit before it refuses a request.

    https://discord.com/developers/docs/topics/rate-limits
    """
    reset = answer.header("x-ratelimit-reset-after", now)
    if answer.status == 429:
        waits_given = (
            answer.header("retry-after", now),
            bounded_seconds(answer.body.get("retry_after")),
            reset,
        )
        return max((each for each in waits_given if each is not None), default=None)
    if answer.headers.get("x-ratelimit-remaining") == "0":
        return reset
    return retry_after_header(answer, now)


def _failed(answer: ServiceResponse) -> Exception:
    code = answer.body.get("code")
    known = _ADVICE.get(code) if isinstance(code, int) else None
    if known is None:
        known = _GONE if answer.status in (401, 403, 404) else "Discord refuses the message"
    return error_for(answer, f"code {code}: {known}" if isinstance(code, int) else known)

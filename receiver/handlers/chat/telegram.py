"""`telegram` handler: a message of a bot, with the video or picture itself.

    [handlers.team]
    use = "telegram"
    token = "env:TELEGRAM_TOKEN"    # the bot's token from BotFather
    chat = "-1001234567890"         # id of a chat with the bot, or @name of a channel
    upload = "50MB"                 # largest upload if Telegram cannot fetch the URL; 0: none

The text is sent first. Then the message is edited: the first result is added, from its URL, which
Telegram fetches itself, or by an upload, and the text becomes its caption.

| response | outcome |
|---|---|
| ok | done; a result that cannot be shown leaves the link |
| 429 | retry when Telegram allows it; no event of this handler before |
| 5xx, a timeout, no connection | retry; the message may be sent twice |
| another 4xx | dead |

Without a `parse_mode`, Telegram reads no markup, but still finds mentions, commands and links,
except in code: all untrusted text is in code entities. Entities are counted in UTF-16 units:
https://core.telegram.org/bots/api#messageentity
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

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
from receiver.handlers.chat.text import MORE_LINE_UNITS, Span, choose_lines, clean, cut, units
from receiver.handlers.settings import AllowedTargets, Bytes
from submitter.prediction import JSON

MAX_TEXT_UNITS = 4096
"""Longest text in UTF-16 units. https://core.telegram.org/bots/api#sendmessage"""

MAX_CAPTION_UNITS = 1024
"""Longest caption in UTF-16 units. https://core.telegram.org/bots/api#inputmediavideo"""


class _Run(NamedTuple):
    """Piece of a line, with the type of its entity."""

    text: str
    type: str | None = None
    url: str | None = None


def render(
    message: Message, template_spans: list[Span] | None, limit: int
) -> tuple[str, list[dict[str, Any]]]:
    """Text of a message, and its entities.

    Args:
        message: the message.
        template_spans: text of the operator's template, which is plain text here; None for the
            standard text.
        limit: in UTF-16 units.
    """
    headline = _Run(cut(message.headline, 200), "bold")
    notes = [(1, [_Run(note, "code")]) for note in message.notes]
    own = _by_template(template_spans, limit // 2) if template_spans else []
    if own:
        lines = [(0, [headline]), (0, own), *notes]
        return _put([line for _, line in _fitted(lines, limit)])
    lines = [(0, [headline])]
    if message.prompt:
        lines.append((3, [_Run(cut(message.prompt, limit // 2), "code")]))
    lines += [(2, [_Run(f"{name}: "), _Run(value, "code")]) for name, value in message.facts]
    lines += notes
    outputs = [
        (1, [_Run(each.label, "text_link", each.url), _Run(f" ({each.fate})")])
        if each.url
        else (1, [_Run(f"{each.label}: {each.fate}")])
        for each in message.outputs
    ]
    kept = _fitted([*lines, *outputs], limit - MORE_LINE_UNITS)
    left = sum(line in outputs for line in kept)
    more = message.more + len(outputs) - left
    shown = [line for _, line in kept]
    return _put([*shown, [_Run(f"and {more} more")]] if more else shown)


def _by_template(template_spans: list[Span], limit: int) -> list[_Run]:
    parts = []
    for span in template_spans:
        text = cut(span.text, limit)
        parts.append(_Run(text, "code" if span.foreign else None))
        if text != span.text:
            break
        limit -= units(text)
    # Telegram strips white space at the end, which would leave entities beyond the text.
    while parts and not parts[-1].text.strip():
        parts.pop()
    return parts


def _fitted(lines: list[tuple[int, list[_Run]]], limit: int) -> list[tuple[int, list[_Run]]]:
    costs = [(rank, sum(units(part.text) for part in line) + 1) for rank, line in lines]
    return [lines[place] for place in choose_lines(costs, limit)]


def _put(lines: list[list[_Run]]) -> tuple[str, list[dict[str, Any]]]:
    text, offset = "", 0
    entities: list[dict[str, Any]] = []
    for number, line in enumerate(lines):
        for part in [_Run("\n"), *line] if number else line:
            length = units(part.text)
            if part.type and part.text.strip():
                link = {"url": part.url} if part.url else {}
                entities.append({"type": part.type, "offset": offset, "length": length, **link})
            text += part.text
            offset += length
    return text, entities


_CHAT = re.compile(r"-?[0-9]{1,20}|@[A-Za-z][A-Za-z0-9_]{3,60}")
_TYPES = {"video": "video", "image": "photo", "audio": "audio"}
# Parts of the API's error texts, and what to do.
_ADVICE = (
    ("chat not found", "the bot does not know this chat; add the bot to it, or correct the id"),
    ("upgraded to a supergroup", "the group has a new id; set it"),
    ("kicked", "the bot was removed; add it again"),
    ("blocked", "the person has blocked the bot; ask them to unblock it"),
    ("not enough rights", "give the bot the right to write there"),
)


class TelegramSettings(ChatSettings):
    """Settings of the handler."""

    token: str = Field(
        repr=False,
        pattern=r"^[0-9]{1,20}:[A-Za-z0-9_-]{10,100}$",
        description="a bot's token from BotFather",
    )
    chat: str | None = Field(
        default=None,
        pattern=f"^(?:{_CHAT.pattern})$",
        description="the id of a chat, such as -1001234567890, or @name of a channel",
    )
    upload: Bytes = 50 * 1000**2
    api: WebUrl = "https://api.telegram.org"
    allow: AllowedTargets = ()


class Telegram(HttpChannel[TelegramSettings]):
    """Handler that sends messages as a bot."""

    def __init__(
        self, settings: TelegramSettings, template: Template | None = None, **options: Any
    ) -> None:
        super().__init__(
            settings,
            settings.chat,
            template,
            allow=settings.allow,
            upload=settings.upload,
            waits=waits,
            **options,
        )
        self._base = f"{settings.api.rstrip('/')}/bot{settings.token}"

    async def deliver(self, outgoing: OutgoingMessage) -> dict[str, JSON]:
        """Send the text, then turn it into the caption of the first result."""
        text, entities = render(outgoing.message, outgoing.template_spans, MAX_TEXT_UNITS)
        body = {
            "chat_id": outgoing.target,
            "text": text,
            "entities": entities,
            "link_preview_options": {"is_disabled": True},
        }
        answer = await self._call("sendMessage", outgoing.deadline, outgoing.target, body)
        sent = answer.body.get("result")
        id = sent.get("message_id") if isinstance(sent, dict) else None
        if not isinstance(id, int):
            return {}
        result: dict[str, JSON] = {"message": id}
        wanted = [each for each in outgoing.message.outputs if each.source and each.kind in _TYPES]
        if self._settings.upload and wanted:
            error = await self._try(partial(self._show, outgoing, id, wanted[0]), outgoing.deadline)
            result["uploaded"] = 0 if error else 1
            if error:
                result["not_uploaded"] = [f"{wanted[0].label}: {error}"]
        return result

    async def check(self) -> str:
        """Query the bot and its chats; nothing is posted.

        Raises:
            GiveUp: the token is not accepted, or the bot does not know a chat.
            Retry: Telegram does not respond.
        """
        deadline = self._clock() + 10.0
        answer = await self._call("getMe", deadline, "getMe", {})
        for target in self._targets:
            await self._call("getChat", deadline, "getChat", {"chat_id": target})
        bot = answer.body.get("result")
        name = clean(str(bot.get("username")), 80) if isinstance(bot, dict) else "a bot"
        return f"Telegram knows the token as {name}, and the bot knows {len(self._targets)} chats"

    async def _show(self, outgoing: OutgoingMessage, id: int, output: Output) -> None:
        """Add a result to the message.

        https://core.telegram.org/bots/api#editmessagemedia
        """
        text, entities = render(outgoing.message, outgoing.template_spans, MAX_CAPTION_UNITS)
        caption = {"caption": text, "caption_entities": entities}
        media = {"type": _TYPES[output.kind], "media": output.source, **caption}
        edit = {"chat_id": outgoing.target, "message_id": id, "media": media}
        answer = await self._send("editMessageMedia", outgoing.deadline, outgoing.target, edit)
        if answer.status == 400:
            # Telegram could not fetch the URL, or the file is too large for that.
            answer = await self._upload(outgoing, id, output, caption)
        if not _is_ok(answer):
            raise _failed(answer)

    async def _upload(
        self, outgoing: OutgoingMessage, id: int, output: Output, caption: Mapping[str, Any]
    ) -> ServiceResponse:
        left = outgoing.deadline - self._clock()
        async with self._media_reader.open(output.source or "", left) as media:
            edit_media = {"type": _TYPES[media.sort], "media": "attach://file", **caption}
            fields = {
                "chat_id": outgoing.target,
                "message_id": str(id),
                "media": json.dumps(edit_media),
            }
            name = output.file(media.kind.name)
            headers, body = multipart(fields, "file", name, media)
            return await self._http.stream(
                "POST",
                f"{self._base}/editMessageMedia",
                outgoing.deadline,
                rate_key=outgoing.target,
                content=body,
                headers=headers,
            )

    async def _call(
        self, method: str, deadline: float, rate_key: str, body: object
    ) -> ServiceResponse:
        answer = await self._send(method, deadline, rate_key, body)
        if not _is_ok(answer):
            raise _failed(answer)
        return answer

    async def _send(
        self, method: str, deadline: float, rate_key: str, body: object
    ) -> ServiceResponse:
        return await self._http.send(
            "POST", f"{self._base}/{method}", deadline, rate_key=rate_key, body=body
        )


def create(name: str, settings: Mapping[str, Any]) -> Telegram:
    """Build the handler.

    Raises:
        SettingsError: with all faults.
    """
    return Telegram(
        *parse_settings(TelegramSettings, name, settings, target_key="chat", check_target=_chat)
    )


def waits(answer: ServiceResponse, now: float) -> float | None:
    """Seconds to wait, by Telegram's response.

    https://core.telegram.org/bots/api#responseparameters
    """
    parameters = answer.body.get("parameters")
    if answer.status == 429 and isinstance(parameters, dict):
        wait = bounded_seconds(parameters.get("retry_after"))
        if wait is not None:
            return wait
    return retry_after_header(answer, now)


def _chat(text: str) -> None:
    if not _CHAT.fullmatch(text):
        raise ValueError("the id of a chat, such as -1001234567890, or @name of a channel")


def _is_ok(answer: ServiceResponse) -> bool:
    return answer.ok and answer.body.get("ok") is True


def _failed(answer: ServiceResponse) -> Exception:
    description = str(answer.body.get("description", "")).lower()
    advice = next(
        (advice for template_spans, advice in _ADVICE if template_spans in description),
        "Telegram refuses the message",
    )
    if answer.status in (401, 404):
        advice = "the token is not accepted; set the one from BotFather"
    return error_for(answer, advice)

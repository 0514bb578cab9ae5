"""Slack's Web API, as far as messages and files go, and what its errors mean."""

from __future__ import annotations

import re
from typing import Any

from receiver.errors import GiveUp, Retry
from receiver.handlers.chat.media import Media, Unfit
from receiver.handlers.chat.sending import Answer, Sender, refused
from receiver.handlers.chat.settings import web_url
from receiver.handlers.envelope import plain

EVENT_TYPE = "wavehook_message"
"""The type of the metadata that our messages carry."""

BAD_BLOCKS = frozenset({"invalid_blocks", "invalid_blocks_format", "invalid_payload"})
"""Nothing was posted: Slack could not fetch a picture, or does not show its kind."""

_WORD = re.compile(r"[a-z0-9_]{1,60}")
_PASSING = frozenset(
    {
        "fatal_error",
        "internal_error",
        "ratelimited",
        "request_timeout",
        "rollup_error",
        "service_unavailable",
    }
)
_NO_TOKEN = "set the token of a bot that is installed in this workspace"  # noqa: S105 - words
_NO_PLACE = "invite the bot to the channel, or name another"
_ARCHIVED = "name a channel that is not archived"
_NO_HOOK = "the webhook is no more; make a new one and set its URL"
_ADVICE = {
    "account_inactive": _NO_TOKEN,
    "invalid_auth": _NO_TOKEN,
    "not_authed": _NO_TOKEN,
    "token_expired": _NO_TOKEN,
    "token_revoked": _NO_TOKEN,
    "channel_not_found": _NO_PLACE,
    "not_in_channel": _NO_PLACE,
    "channel_is_archived": _ARCHIVED,
    "is_archived": _ARCHIVED,
    "invalid_token": _NO_HOOK,
    "no_active_hooks": _NO_HOOK,
    "no_service": _NO_HOOK,
    "no_service_id": _NO_HOOK,
    "no_team": _NO_HOOK,
    "missing_scope": "give the bot the scopes chat:write and files:write, and install it again",
}


def error_of(answer: Answer, *, api: bool) -> str | None:
    """Slack's word for what is wrong; None where nothing is.

    Args:
        answer: of Slack.
        api: of its Web API, which says so in JSON, or else of a webhook, which has the status.
    """
    if answer.well and (answer.body.get("ok") is True or not api):
        return None
    word = answer.body.get("error") if answer.body else answer.text.strip()
    return word if isinstance(word, str) and _WORD.fullmatch(word) else "no_reason"


def failure(answer: Answer, error: str) -> Exception:
    """What a handler raises for an error of Slack's."""
    if error in _PASSING:
        return Retry(f"{answer.host}: {error}")
    advice = _ADVICE.get(error, "Slack refuses it")
    if answer.well:
        return GiveUp(f"{answer.host}: {error}: {advice}")
    return refused(answer, f"{error}: {advice}")


class WebApi:
    """Calls of the Web API.

    Args:
        sender: sends the requests.
        token: of a bot.
        base: where the API is.
    """

    def __init__(self, sender: Sender, token: str, base: str) -> None:
        self._sender = sender
        self._token = token
        self._base = base.rstrip("/")

    async def ask(self, method: str, deadline: float, place: str, **request: Any) -> Answer:
        """Call a method, and take what it answers.

        Args:
            method: such as `chat.postMessage`.
            deadline: Unix seconds.
            place: what Slack counts this call by.
            request: its `body` or `form`.
        """
        headers = {"authorization": f"Bearer {self._token}"}
        url = f"{self._base}/{method}"
        return await self._sender.send(
            "POST", url, deadline, place=place, headers=headers, **request
        )

    async def call(self, method: str, deadline: float, **request: Any) -> Answer:
        """Call a method that Slack counts by its name.

        Raises:
            GiveUp: Slack refused it for good.
            Retry: it did not, or not yet.
        """
        answer = await self.ask(method, deadline, method, **request)
        error = error_of(answer, api=True)
        if error is not None:
            raise failure(answer, error)
        return answer

    async def find(
        self, channel: str, key: str, since: float, deadline: float
    ) -> tuple[str, bool] | None:
        """Look for a message that was posted, and whose answer was lost.

        Args:
            channel: its id.
            key: that the message carries.
            since: Unix seconds before which it cannot be there.
            deadline: Unix seconds.

        Returns:
            Its timestamp, and whether its thread has answers; None where it is not there, or
            where the bot may not look.
        """
        form = {
            "channel": channel,
            "oldest": f"{max(since - 60.0, 0.0):.6f}",
            "include_all_metadata": "true",
            "limit": "200",
        }
        try:
            answer = await self.call("conversations.history", deadline, form=form)
        except (GiveUp, Retry):
            return None
        messages = answer.body.get("messages")
        for each in messages if isinstance(messages, list) else ():
            match each:
                case {
                    "ts": str(timestamp),
                    "metadata": {"event_payload": {"key": str(found)}},
                    **rest,
                } if found == plain(key):
                    return timestamp, bool(rest.get("reply_count"))
        return None

    async def upload(self, media: Media, name: str, deadline: float) -> str:
        """Bring a file to Slack, where nobody sees it yet; gives its id.

        https://docs.slack.dev/messaging/working-with-files#upload

        Raises:
            GiveUp: Slack refused it for good.
            Retry: it did not.
            Unfit: Slack gave no place for it.
        """
        form = {"filename": name, "length": str(media.size)}
        answer = await self.call("files.getUploadURLExternal", deadline, form=form)
        id = answer.body.get("file_id")
        try:
            url = web_url(str(answer.body.get("upload_url")))
        except ValueError:
            url = None
        if url is None or not isinstance(id, str):
            raise Unfit("Slack gave no place for it")
        headers = {"content-type": "application/octet-stream", "content-length": str(media.size)}
        answer = await self._sender.stream(
            "POST", url, deadline, place=None, content=media.content, headers=headers
        )
        if not answer.well:
            raise refused(answer, "Slack did not take the file")
        return id

"""`slack` handler: a message in a channel; extra `slack`.

    [handlers.team]
    use = "slack"
    token = "env:SLACK_TOKEN"       # of a bot with chat:write, and files:write for videos
    channel = "C0123ABCDEF"         # the bot must be a member
    # or, without uploads: url = "env:SLACK_URL", an incoming webhook

Slack downloads and shows the pictures. A bot also uploads videos, sound, and pictures that Slack
could not download, to the message's thread. Before a bot sends a message again, it looks for the
first one, if it has the scopes channels:history and metadata.message:read.

| response | outcome |
|---|---|
| ok | done; a failed upload leaves the link |
| 429 | retry when Slack allows it; no event of this handler before |
| a picture that Slack cannot download | sent again at once, without pictures |
| 5xx, an error inside Slack, no response | retry |
| any other error | dead |
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from pydantic import Field

from receiver.errors import GiveUp, Retry
from receiver.handlers.chat.base import HttpChannel, OutgoingMessage, parse_settings
from receiver.handlers.chat.http import ChatClient, ServiceResponse, check_webhooks, error_for
from receiver.handlers.chat.media import Media, MediaUnusable
from receiver.handlers.chat.message import Output
from receiver.handlers.chat.settings import ChatSettings, WebUrl
from receiver.handlers.chat.template import Template
from receiver.handlers.chat.text import clean
from receiver.handlers.envelope import ascii_key
from receiver.handlers.settings import AllowedTargets, Bytes
from receiver.outbound.client import web_url
from submitter.prediction import JSON

EVENT_TYPE = "wavehook_message"
"""Type of the metadata that every message carries."""

BAD_BLOCKS = frozenset({"invalid_blocks", "invalid_blocks_format", "invalid_payload"})
"""Nothing was posted: Slack could not download a picture, or does not show its kind."""

_ERROR_CODE = re.compile(r"[a-z0-9_]{1,60}")
_TEMPORARY = frozenset(
    {
        "fatal_error",
        "internal_error",
        "ratelimited",
        "request_timeout",
        "rollup_error",
        "service_unavailable",
    }
)
_NO_TOKEN = "set the token of a bot that is installed in this workspace"  # noqa: S105 - a text
_NO_CHANNEL = "invite the bot to the channel, or choose another"
_ARCHIVED = "choose a channel that is not archived"
_NO_WEBHOOK = "the webhook does not exist any more; create a new one and set its URL"
_ADVICE = {
    "account_inactive": _NO_TOKEN,
    "invalid_auth": _NO_TOKEN,
    "not_authed": _NO_TOKEN,
    "token_expired": _NO_TOKEN,
    "token_revoked": _NO_TOKEN,
    "channel_not_found": _NO_CHANNEL,
    "not_in_channel": _NO_CHANNEL,
    "channel_is_archived": _ARCHIVED,
    "is_archived": _ARCHIVED,
    "invalid_token": _NO_WEBHOOK,
    "no_active_hooks": _NO_WEBHOOK,
    "no_service": _NO_WEBHOOK,
    "no_service_id": _NO_WEBHOOK,
    "no_team": _NO_WEBHOOK,
    "missing_scope": "give the bot the scopes chat:write and files:write, and install it again",
}


def error_of(answer: ServiceResponse, *, api: bool) -> str | None:
    """Slack's error code; None for a success.

    Args:
        answer: of Slack.
        api: True for the Web API, which reports errors in JSON; False for a webhook, which has a
            status.
    """
    if answer.ok and (answer.body.get("ok") is True or not api):
        return None
    code = answer.body.get("error") if answer.body else answer.text.strip()
    return code if isinstance(code, str) and _ERROR_CODE.fullmatch(code) else "no_reason"


def failure(answer: ServiceResponse, error: str) -> Exception:
    """Exception for an error code."""
    if error in _TEMPORARY:
        return Retry(f"{answer.host}: {error}")
    advice = _ADVICE.get(error, "Slack refuses the message")
    if answer.ok:
        return GiveUp(f"{answer.host}: {error}: {advice}")
    return error_for(answer, f"{error}: {advice}")


class WebApi:
    """Client of Slack's Web API.

    Args:
        client: sends the requests.
        token: of a bot.
        base: URL of the API.
    """

    def __init__(self, client: ChatClient, token: str, base: str) -> None:
        self._client = client
        self._token = token
        self._base = base.rstrip("/")

    async def ask(
        self, method: str, deadline: float, rate_key: str, **request: Any
    ) -> ServiceResponse:
        """Call a method, and return its response.

        Args:
            method: such as `chat.postMessage`.
            deadline: Unix seconds.
            rate_key: key by which Slack counts the call.
            request: its `body` or `form`.
        """
        headers = {"authorization": f"Bearer {self._token}"}
        url = f"{self._base}/{method}"
        return await self._client.send(
            "POST", url, deadline, rate_key=rate_key, headers=headers, **request
        )

    async def call(self, method: str, deadline: float, **request: Any) -> ServiceResponse:
        """Call a method that Slack counts by its name.

        Raises:
            GiveUp: a permanent error.
            Retry: a temporary error.
        """
        answer = await self.ask(method, deadline, method, **request)
        error = error_of(answer, api=True)
        if error is not None:
            raise failure(answer, error)
        return answer

    async def find(
        self, channel: str, key: str, since: float, deadline: float
    ) -> tuple[str, bool] | None:
        """Look for a message that was posted, but whose response was lost.

        Args:
            channel: the channel's id.
            key: idempotency key in the message's metadata.
            since: Unix seconds; the message is not older.
            deadline: Unix seconds.

        Returns:
            Its timestamp, and True if its thread has replies; None if it is not found, or the bot
            lacks the scopes.
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
                } if found == ascii_key(key):
                    return timestamp, bool(rest.get("reply_count"))
        return None

    async def upload(self, media: Media, name: str, deadline: float) -> str:
        """Upload a file, which is not shown yet; returns its id.

        https://docs.slack.dev/messaging/working-with-files#upload

        Raises:
            GiveUp: a permanent error.
            Retry: a temporary error.
            MediaUnusable: Slack returned no upload URL.
        """
        form = {"filename": name, "length": str(media.size)}
        answer = await self.call("files.getUploadURLExternal", deadline, form=form)
        id = answer.body.get("file_id")
        try:
            url = web_url(str(answer.body.get("upload_url")))
        except ValueError:
            url = None
        if url is None or not isinstance(id, str):
            raise MediaUnusable("Slack returned no upload URL")
        headers = {"content-type": "application/octet-stream", "content-length": str(media.size)}
        answer = await self._client.stream(
            "POST", url, deadline, rate_key=None, content=media.content, headers=headers
        )
        if not answer.ok:
            raise error_for(answer, "Slack refuses the file")
        return id


_CHANNEL = re.compile(r"[A-Z0-9]{2,30}")


class SlackSettings(ChatSettings):
    """Settings of the handler."""

    url: WebUrl | None = Field(
        default=None, repr=False, description="the URL of an incoming webhook, or a `token`"
    )
    token: str | None = Field(
        default=None,
        repr=False,
        pattern=r"^xox[A-Za-z0-9.-]{8,500}$",
        description="a bot's token, which begins with xox",
    )
    channel: str | None = Field(
        default=None,
        pattern=f"^{_CHANNEL.pattern}$",
        description="the id of a channel, such as C0123ABCDEF",
    )
    upload: Bytes = 100 * 1024**2
    api: WebUrl = "https://slack.com/api"
    allow: AllowedTargets = ()


class Slack(HttpChannel[SlackSettings]):
    """Handler that posts to channels."""

    def __init__(
        self, settings: SlackSettings, template: Template | None = None, **options: Any
    ) -> None:
        super().__init__(
            settings,
            settings.channel if settings.token else settings.url,
            template,
            allow=settings.allow,
            upload=settings.upload,
            **options,
        )
        self._api: WebApi | None = None
        if settings.token:
            self._api = WebApi(self._http, settings.token, settings.api)

    async def deliver(self, outgoing: OutgoingMessage) -> dict[str, JSON]:
        """Post the message, then upload results to its thread."""
        api = self._api
        if api is None:
            await self._post(outgoing)
            return {}
        channel, found, images = outgoing.target, None, True
        if outgoing.attempt > 1:
            found = await api.find(channel, outgoing.message.key, outgoing.since, outgoing.deadline)
        if found is None:
            answer, images = await self._post(outgoing)
            # A message to a person is in a channel with an id of its own.
            channel = str(answer.body.get("channel", channel))
            found = str(answer.body.get("ts", "")), False
        timestamp, threaded = found
        result: dict[str, JSON] = {"channel": channel, "ts": timestamp}
        if self._settings.upload and timestamp and not threaded:
            wanted = [
                each
                for each in outgoing.message.outputs
                if each.source and not (images and each.kind == "image")
            ]
            thread = {"channel_id": channel, "thread_ts": timestamp}
            result |= await self._thread(api, thread, wanted, outgoing.deadline)
        return result

    async def check(self) -> str:
        """Query the bot of the token; for a webhook, connect to its host only.

        Raises:
            GiveUp: the token is not accepted, or lacks the scope to post.
            Retry: Slack does not respond.
        """
        if self._api is None:
            return await check_webhooks(self._targets, self._settings.allow)
        answer = await self._api.call("auth.test", self._clock() + 10.0, form={})
        header = answer.headers.get("x-oauth-scopes", "chat:write,files:write")
        scopes = {each.strip() for each in header.split(",")}
        if "chat:write" not in scopes:
            raise GiveUp("the token lacks the scope chat:write; add it, and install the bot again")
        user, team = (clean(str(answer.body.get(key)), 80) for key in ("user", "team"))
        found = f"Slack knows the token as {user} in {team}"
        if self._settings.upload and "files:write" not in scopes:
            found += "; without the scope files:write it uploads nothing"
        return found

    async def _post(self, outgoing: OutgoingMessage) -> tuple[ServiceResponse, bool]:
        """Post the message; the second value is True if it shows its pictures."""
        from receiver.handlers.chat.blocks import payload

        images = any(each.kind == "image" and each.url for each in outgoing.message.outputs)
        while True:
            body = payload(outgoing.message, outgoing.template_spans, images=images)
            if self._api is None:
                answer = await self._http.send(
                    "POST", outgoing.target, outgoing.deadline, rate_key=outgoing.target, body=body
                )
            else:
                carried = {"key": ascii_key(outgoing.message.key)}
                body["metadata"] = {"event_type": EVENT_TYPE, "event_payload": carried}
                body["channel"] = outgoing.target
                answer = await self._api.ask(
                    "chat.postMessage", outgoing.deadline, outgoing.target, body=body
                )
            error = error_of(answer, api=self._api is not None)
            if error is None:
                return answer, images
            if not images or error not in BAD_BLOCKS:
                raise failure(answer, error)
            images = False

    async def _thread(
        self, api: WebApi, thread: Mapping[str, str], wanted: list[Output], deadline: float
    ) -> dict[str, JSON]:
        """Upload results to the thread of their message."""
        files: list[dict[str, str]] = []
        failed: list[JSON] = []

        async def upload(output: Output) -> None:
            left = deadline - self._clock()
            async with self._media_reader.open(output.source or "", left) as media:
                id = await api.upload(media, output.file(media.kind.name), deadline)
            files.append({"id": id, "title": output.label})

        for output in wanted:
            error = await self._try(partial(upload, output), deadline)
            failed += [f"{output.label}: {error}"] if error else []
        if files:
            body = {"files": files, **thread}
            share = partial(api.call, "files.completeUploadExternal", deadline, body=body)
            error = await self._try(share, deadline)
            failed += [error] if error else []
            files = [] if error else files
        result: dict[str, JSON] = {"uploaded": len(files)}
        return result | {"not_uploaded": failed} if failed else result


def create(name: str, settings: Mapping[str, Any]) -> Slack:
    """Build the handler.

    Raises:
        SettingsError: with all faults.
        ImportError: slack-sdk is missing.
    """
    import slack_sdk.models.blocks  # noqa: F401 - a missing package shows at start-up

    bot = bool(settings.get("token"))
    target_key, check_target = ("channel", _channel) if bot else ("url", web_url)
    return Slack(
        *parse_settings(
            SlackSettings,
            name,
            settings,
            target_key=target_key,
            check_target=check_target,
            more_faults=_conflicts,
        )
    )


def _channel(text: str) -> None:
    if not _CHANNEL.fullmatch(text):
        raise ValueError("the id of a channel, such as C0123ABCDEF")


def _conflicts(parsed: SlackSettings) -> list[str]:
    if parsed.token and parsed.url:
        return ["url: set together with `token`, expected only one of the two"]
    if parsed.channel and not parsed.token:
        return ["token: missing, expected a bot's token for this channel"]
    return []

"""`slack`: a message in a channel; extra `slack`.

    [handlers.team]
    use = "slack"
    token = "env:SLACK_TOKEN"       # of a bot with chat:write, and files:write for videos
    channel = "C0123ABCDEF"         # where the bot is a member
    # or, without uploads: url = "env:SLACK_URL", an incoming webhook

Slack fetches and shows the pictures. A bot also puts videos and sound, and pictures that Slack
could not fetch, into the message's thread. Before a bot sends a message again, it looks whether
the first one has arrived, where it has the scopes channels:history and metadata.message:read.

| the answer | what follows |
|---|---|
| ok | done; uploads that fail leave the link |
| 429 | not before Slack says, for every event of this handler |
| a picture that Slack cannot fetch | again at once, without pictures |
| 5xx, an error inside Slack, no answer | again by the retry policy |
| any other error | never again |

Slack's Web API, as far as messages and files go, and what its errors mean.
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
from receiver.handlers.chat.settings import ChatSettings, WebUrl, web_url
from receiver.handlers.chat.template import Template
from receiver.handlers.chat.text import clean
from receiver.handlers.envelope import ascii_key
from receiver.handlers.settings import AllowedTargets, Bytes
from submitter.prediction import JSON

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


def error_of(answer: ServiceResponse, *, api: bool) -> str | None:
    """Slack's word for what is wrong; None where nothing is.

    Args:
        answer: of Slack.
        api: of its Web API, which says so in JSON, or else of a webhook, which has the status.
    """
    if answer.ok and (answer.body.get("ok") is True or not api):
        return None
    word = answer.body.get("error") if answer.body else answer.text.strip()
    return word if isinstance(word, str) and _WORD.fullmatch(word) else "no_reason"


def failure(answer: ServiceResponse, error: str) -> Exception:
    """What a handler raises for an error of Slack's."""
    if error in _PASSING:
        return Retry(f"{answer.host}: {error}")
    advice = _ADVICE.get(error, "Slack refuses it")
    if answer.ok:
        return GiveUp(f"{answer.host}: {error}: {advice}")
    return error_for(answer, f"{error}: {advice}")


class WebApi:
    """Calls of the Web API.

    Args:
        client: sends the requests.
        token: of a bot.
        base: where the API is.
    """

    def __init__(self, client: ChatClient, token: str, base: str) -> None:
        self._client = client
        self._token = token
        self._base = base.rstrip("/")

    async def ask(
        self, method: str, deadline: float, rate_key: str, **request: Any
    ) -> ServiceResponse:
        """Call a method, and take what it answers.

        Args:
            method: such as `chat.postMessage`.
            deadline: Unix seconds.
            rate_key: what Slack counts this call by.
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
                } if found == ascii_key(key):
                    return timestamp, bool(rest.get("reply_count"))
        return None

    async def upload(self, media: Media, name: str, deadline: float) -> str:
        """Bring a file to Slack, where nobody sees it yet; gives its id.

        https://docs.slack.dev/messaging/working-with-files#upload

        Raises:
            GiveUp: Slack refused it for good.
            Retry: it did not.
            MediaUnusable: Slack gave no place for it.
        """
        form = {"filename": name, "length": str(media.size)}
        answer = await self.call("files.getUploadURLExternal", deadline, form=form)
        id = answer.body.get("file_id")
        try:
            url = web_url(str(answer.body.get("upload_url")))
        except ValueError:
            url = None
        if url is None or not isinstance(id, str):
            raise MediaUnusable("Slack gave no place for it")
        headers = {"content-type": "application/octet-stream", "content-length": str(media.size)}
        answer = await self._client.stream(
            "POST", url, deadline, rate_key=None, content=media.content, headers=headers
        )
        if not answer.ok:
            raise error_for(answer, "Slack did not take the file")
        return id


_CHANNEL = re.compile(r"[A-Z0-9]{2,30}")


class SlackSettings(ChatSettings):
    """The handler's own settings."""

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
    """Posts into channels."""

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
        """Post the message, and then what belongs into its thread."""
        api = self._api
        if api is None:
            await self._post(outgoing)
            return {}
        channel, found, images = outgoing.target, None, True
        if outgoing.attempt > 1:
            found = await api.find(channel, outgoing.message.key, outgoing.since, outgoing.deadline)
        if found is None:
            answer, images = await self._post(outgoing)
            # A message to a person is in a channel of another id.
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
        """Ask Slack whose the token is; to a webhook connect, for only a message would try it.

        Raises:
            GiveUp: the token is not accepted, or has not the scope to outgoing.
            Retry: Slack does not answer.
        """
        if self._api is None:
            return await check_webhooks(self._targets, self._settings.allow)
        answer = await self._api.call("auth.test", self._clock() + 10.0, form={})
        told = answer.headers.get("x-oauth-scopes", "chat:write,files:write")
        scopes = {each.strip() for each in told.split(",")}
        if "chat:write" not in scopes:
            raise GiveUp(
                "the token has not the scope chat:write; add it, and install the bot again"
            )
        user, team = (clean(str(answer.body.get(key)), 80) for key in ("user", "team"))
        found = f"Slack knows the token as {user} in {team}"
        if self._settings.upload and "files:write" not in scopes:
            found += "; without the scope files:write it uploads nothing"
        return found

    async def _post(self, outgoing: OutgoingMessage) -> tuple[ServiceResponse, bool]:
        """Post the message; says whether its pictures were taken."""
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
        """Put results into the thread of their message."""
        files: list[dict[str, str]] = []
        failed: list[JSON] = []

        async def upload(output: Output) -> None:
            left = deadline - self._clock()
            async with self._media_reader.open(output.source or "", left) as media:
                id = await api.upload(media, output.file(media.kind.name), deadline)
            files.append({"id": id, "title": output.label})

        for output in wanted:
            why = await self._try(partial(upload, output), deadline)
            failed += [f"{output.label}: {why}"] if why else []
        if files:
            body = {"files": files, **thread}
            share = partial(api.call, "files.completeUploadExternal", deadline, body=body)
            why = await self._try(share, deadline)
            failed += [why] if why else []
            files = [] if why else files
        result: dict[str, JSON] = {"uploaded": len(files)}
        return result | {"not_uploaded": failed} if failed else result


def create(name: str, settings: Mapping[str, Any]) -> Slack:
    """Make the handler.

    Raises:
        SettingsError: with all faults.
        ImportError: slack-sdk is missing.
    """
    import slack_sdk.models.blocks  # noqa: F401 - where it is missing, that shows at start

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
        return ["url: beside a token, expected one of the two"]
    if parsed.channel and not parsed.token:
        return ["token: missing, expected a bot's token for this channel"]
    return []

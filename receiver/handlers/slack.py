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
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from pydantic import Field

from receiver.errors import GiveUp
from receiver.handlers.chat.channel import Channel, Post
from receiver.handlers.chat.media import Reader
from receiver.handlers.chat.message import Output
from receiver.handlers.chat.sending import Answer, Sender, reachable
from receiver.handlers.chat.settings import Allow, Bytes, ChatSettings, WebUrl, web_url
from receiver.handlers.chat.slack_api import BAD_BLOCKS, EVENT_TYPE, WebApi, error_of, failure
from receiver.handlers.chat.start import start
from receiver.handlers.chat.template import Template
from receiver.handlers.chat.text import clean
from receiver.handlers.envelope import plain
from submitter.prediction import JSON

_CHANNEL = re.compile(r"[A-Z0-9]{2,30}")


class Settings(ChatSettings):
    """The handler's own settings."""

    url: WebUrl | None = Field(
        default=None, repr=False, description="the URL of an incoming webhook, or a `token`"
    )
    token: str | None = Field(default=None, repr=False, pattern=r"^xox[A-Za-z0-9.-]{8,500}$")
    channel: str | None = Field(
        default=None,
        pattern=f"^{_CHANNEL.pattern}$",
        description="the id of a channel, such as C0123ABCDEF",
    )
    upload: Bytes = 100 * 1024**2
    api: WebUrl = "https://slack.com/api"
    allow: Allow = ()


class Slack(Channel[Settings]):
    """Posts into channels."""

    def __init__(self, settings: Settings, template: Template | None = None, **time: Any) -> None:
        super().__init__(
            settings, settings.channel if settings.token else settings.url, template, **time
        )
        self._sender = Sender(settings.allow, clock=self._clock, sleep=self._sleep)
        self._reader = Reader(settings.allow, settings.upload)
        self._api: WebApi | None = None
        if settings.token:
            self._api = WebApi(self._sender, settings.token, settings.api)

    async def deliver(self, post: Post) -> dict[str, JSON]:
        """Post the message, and then what belongs into its thread."""
        api = self._api
        if api is None:
            await self._post(post)
            return {}
        channel, found, images = post.target, None, True
        if post.attempt > 1:
            found = await api.find(channel, post.message.key, post.since, post.deadline)
        if found is None:
            answer, images = await self._post(post)
            # A message to a person is in a channel of another id.
            channel = str(answer.body.get("channel", channel))
            found = str(answer.body.get("ts", "")), False
        timestamp, threaded = found
        result: dict[str, JSON] = {"channel": channel, "ts": timestamp}
        if self._settings.upload and timestamp and not threaded:
            wanted = [
                each
                for each in post.message.outputs
                if each.source and not (images and each.kind == "image")
            ]
            thread = {"channel_id": channel, "thread_ts": timestamp}
            result |= await self._thread(api, thread, wanted, post.deadline)
        return result

    async def check(self) -> str:
        """Ask Slack whose the token is; to a webhook connect, for only a message would try it.

        Raises:
            GiveUp: the token is not accepted, or has not the scope to post.
            Retry: Slack does not answer.
        """
        if self._api is None:
            return await reachable(self._targets, self._settings.allow)
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

    async def close(self) -> None:
        """Let the connections go; the next event makes new ones."""
        await self._sender.close()
        await self._reader.close()

    async def _post(self, post: Post) -> tuple[Answer, bool]:
        """Post the message; says whether its pictures were taken."""
        from receiver.handlers.chat.blocks import payload

        images = any(each.kind == "image" and each.url for each in post.message.outputs)
        while True:
            body = payload(post.message, post.words, images=images)
            if self._api is None:
                answer = await self._sender.send(
                    "POST", post.target, post.deadline, place=post.target, body=body
                )
            else:
                carried = {"key": plain(post.message.key)}
                body["metadata"] = {"event_type": EVENT_TYPE, "event_payload": carried}
                body["channel"] = post.target
                answer = await self._api.ask(
                    "chat.postMessage", post.deadline, post.target, body=body
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
            async with self._reader.open(output.source or "", left) as media:
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
    usual, fits = ("channel", _channel) if bot else ("url", web_url)
    return Slack(*start(Settings, name, settings, usual=usual, fits=fits, others=_both))


def _channel(text: str) -> None:
    if not _CHANNEL.fullmatch(text):
        raise ValueError("the id of a channel, such as C0123ABCDEF")


def _both(chosen: Settings) -> list[str]:
    if chosen.token and chosen.url:
        return ["url: beside a token, expected one of the two"]
    if chosen.channel and not chosen.token:
        return ["token: missing, expected a bot's token for this channel"]
    return []

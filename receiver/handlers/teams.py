"""`teams`: an Adaptive Card through a workflow's URL.

    [handlers.team]
    use = "teams"
    url = "env:TEAMS_URL"       # of the workflow "Send webhook alerts to a channel"

Pictures are shown from their links, videos get a button: a workflow takes no files. It answers
before it posts, and says nothing of what it could not post.

| the answer | what follows |
|---|---|
| 2xx | done |
| 429 or 503 with Retry-After | not before then, for every event of this handler |
| 5xx, none in time, no connection | again by the retry policy; may come twice |
| another 4xx | never again |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from receiver.handlers.chat.card import payload
from receiver.handlers.chat.channel import Channel, Post
from receiver.handlers.chat.sending import Sender, reachable, refused
from receiver.handlers.chat.settings import Allow, ChatSettings, WebUrl, web_url
from receiver.handlers.chat.start import start
from receiver.handlers.chat.template import Template
from submitter.prediction import JSON

_GONE = "the workflow is no more, or is off; turn it on, or make a new one and set its URL"


class Settings(ChatSettings):
    """The handler's own settings."""

    url: WebUrl | None = Field(default=None, repr=False, description="the URL of a workflow")
    allow: Allow = ()


class Teams(Channel[Settings]):
    """Posts through workflows."""

    def __init__(self, settings: Settings, template: Template | None = None, **time: Any) -> None:
        super().__init__(settings, settings.url, template, **time)
        self._sender = Sender(settings.allow, clock=self._clock, sleep=self._sleep)

    async def deliver(self, post: Post) -> dict[str, JSON]:
        """Post the card."""
        card = payload(post.message, post.words)
        answer = await self._sender.send(
            "POST", post.target, post.deadline, place=post.target, body=card
        )
        if not answer.well:
            gone = answer.status in (401, 403, 404, 410)
            raise refused(answer, _GONE if gone else "Teams refuses the card")
        return {}

    async def check(self) -> str:
        """Connect; a workflow can only be tried by posting."""
        return await reachable(self._targets, self._settings.allow)

    async def close(self) -> None:
        """Let the connections go; the next event makes new ones."""
        await self._sender.close()


def create(name: str, settings: Mapping[str, Any]) -> Teams:
    """Make the handler.

    Raises:
        SettingsError: with all faults.
    """
    return Teams(*start(Settings, name, settings, usual="url", fits=web_url))

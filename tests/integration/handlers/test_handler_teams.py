"""`teams` against a real server on this machine that answers as a workflow does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from receiver.errors import GiveUp, Retry, SettingsError
from receiver.handlers.chat.teams import Teams, TeamsSettings, create
from tests.support import chat_limits as limits
from tests.support.chat_events import NOW, event, kept, run
from tests.support.chat_service import Answer, Service, serving
from tests.support.clocks import Clock

PATH = "/workflows/0a1b/triggers/manual/paths/invoke?sig=s3cret"


@asynccontextmanager
async def teams(**settings: Any) -> AsyncIterator[tuple[Service, Teams, Clock]]:
    async with serving(lambda _: Answer(202)) as service:
        chosen = {"url": service.url + PATH, "allow": ["127.0.0.1"], **settings}
        time = Clock(NOW)
        handler = Teams(TeamsSettings.model_validate(chosen), clock=time, sleep=time.sleep)
        try:
            yield service, handler, time
        finally:
            await handler.close()


async def test_a_card_arrives() -> None:
    """As a workflow expects it: the whole URL with its signature, and JSON in UTF-8."""
    async with teams() as (service, handler, _):
        result = await handler(event(input={"prompt": "é漢\U0001f980"}), run(earlier=kept()))
    assert result == {"sent": True}
    [post] = service.requests
    assert (post.method, post.path) == ("POST", PATH)
    assert post.headers["content-type"] == "application/json; charset=utf-8"
    limits.teams(post.json)
    assert "é漢\U0001f980".encode() in post.body
    card = post.json["attachments"][0]["content"]
    assert card["actions"][0]["url"] == "https://keep.example.com/7f3c1d0e/0.mp4"


async def test_a_429_is_waited_out_or_pauses_the_handler() -> None:
    """F27: as Retry-After says."""
    async with teams() as (service, handler, time):
        service.told["invoke"] = [Answer(429, b"", {"retry-after": "5"})]
        await handler(event(), run())
        assert time.slept == [5.0]
        service.told["invoke"] = [Answer(503, b"", {"retry-after": "60"})]
        with pytest.raises(Retry, match=r"^127\.0\.0\.1: asks to wait 60 s$") as retry:
            await handler(event(), run())
    assert (retry.value.after, retry.value.pause) == (60.0, True)


@pytest.mark.parametrize("answer", [Answer(500), Answer(502), Answer(429), None])
async def test_a_passing_trouble_is_tried_again(answer: Answer | None) -> None:
    """F23, F16: by the policy, and without the signature in the URL."""
    async with teams() as (service, handler, _):
        service.told["invoke"] = [answer]
        with pytest.raises(Retry) as retry:
            await handler(event(), run())
    assert "s3cret" not in str(retry.value)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "the workflow was deleted or is off"),
        (404, "the workflow was deleted or is off"),
        (400, "HTTP 400: Teams refuses the card"),
        (413, "HTTP 413: Teams refuses the card"),
    ],
)
async def test_a_refusal_says_what_to_do(status: int, words: str) -> None:
    """F23: dead at once."""
    async with teams() as (service, handler, _):
        service.told["invoke"] = [Answer(status, b"s3cret")]
        with pytest.raises(GiveUp, match=words) as gone:
            await handler(event(), run())
    assert "s3cret" not in str(gone.value)


async def test_check_connects_and_posts_nothing() -> None:
    """Each place once."""
    async with teams() as (service, handler, _):
        found = await handler.check()
    assert "takes connections" in found
    assert "s3cret" not in found
    assert service.requests == []


def test_faults_show_at_start_without_secrets() -> None:
    """F16: a URL is a secret."""
    with pytest.raises(SettingsError) as error:
        create("team", {"url": "s3cret"})
    assert str(error.value).startswith("handlers.team.url: '…', expected an http or https URL")
    create("team", {"url": "https://x.example/s3cret"})

"""`slack` against a real server on this machine that answers as Slack does."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from receiver.errors import GiveUp, Retry, SettingsError
from receiver.event import Event
from receiver.handlers.chat.slack import Slack, SlackSettings, create
from tests.support.chat_events import NOW, event, lost, run
from tests.support.chat_service import MP4, PNG, Answer, Request, Service, serving
from tests.support.clocks import Clock

TOKEN = "xoxb-1234-s3cret"
HOOK = "/services/T0/B0/s3cret"
CHANNEL = "C0123ABCDEF"
TS = "1785585763.000100"


class Says:
    """As Slack does where all is well; the service's own URL is in one of its answers."""

    def __init__(self) -> None:
        self.url = ""
        self.files = 0

    def __call__(self, request: Request) -> Answer:
        match request.name:
            case "chat.postMessage":
                return Answer(200, {"ok": True, "channel": CHANNEL, "ts": TS})
            case "files.getUploadURLExternal":
                self.files += 1
                url = f"{self.url}/upload/v1/place-{self.files}"
                return Answer(200, {"ok": True, "upload_url": url, "file_id": f"F{self.files}"})
            case "conversations.history":
                return Answer(200, {"ok": True, "messages": []})
            case "auth.test":
                told = {"ok": True, "user": "wavehook", "team": "Studio"}
                return Answer(200, told, {"x-oauth-scopes": "chat:write, files:write"})
            case name if name.startswith("place-"):
                return Answer(200, b"OK - 123")
            case "s3cret" | "design":
                return Answer(200, b"ok")
            case _:
                return Answer(200, {"ok": True})


@asynccontextmanager
async def slack(
    *, bot: bool = True, **settings: Any
) -> AsyncIterator[tuple[Service, Slack, Clock]]:
    says = Says()
    async with serving(says) as service:
        says.url = service.url
        chosen: dict[str, Any] = {"allow": ["127.0.0.1"], "api": f"{service.url}/api"}
        if bot:
            chosen |= {"token": TOKEN, "channel": CHANNEL}
        else:
            chosen |= {"url": service.url + HOOK}
        time = Clock(NOW)
        handler = Slack(
            SlackSettings.model_validate(chosen | settings), clock=time, sleep=time.sleep
        )
        try:
            yield service, handler, time
        finally:
            await handler.close()


def on(service: Service, *names: str, **body: Any) -> Event:
    """An event whose outputs the service has."""
    return event(outputs=[f"{service.url}/{name}" for name in names], **body)


async def test_a_webhook_gets_text_and_pictures() -> None:
    """One request; Slack fetches the picture itself."""
    async with slack(bot=False) as (service, handler, _):
        assert await handler(on(service, "0.png", "video.mp4"), run()) == {"sent": True}
    [post] = service.requests
    assert post.path == HOOK
    assert post.json["text"] == "2 outputs ready: kwaivgi/kling-v2.1-i2v-standard"
    [picture] = [each for each in post.json["blocks"] if each["type"] == "image"]
    assert picture["image_url"].endswith("/0.png")
    assert picture["alt_text"] == "A lighthouse at dusk"
    assert "channel" not in post.json


async def test_a_bot_posts_the_text_and_puts_the_video_into_its_thread() -> None:
    """The file is read back byte by byte; the calls are in this order."""
    async with slack() as (service, handler, _):
        result = await handler(on(service, "video.mp4"), run())
    assert result == {"sent": True, "channel": CHANNEL, "ts": TS, "uploaded": 1}
    assert service.names == [
        "chat.postMessage",
        "files.getUploadURLExternal",
        "place-1",
        "files.completeUploadExternal",
    ]
    post, place, upload, share = (service.named(name)[0] for name in service.names)
    assert post.json["channel"] == CHANNEL
    assert post.headers["authorization"] == f"Bearer {TOKEN}"
    assert place.form == {"filename": "video.mp4", "length": str(len(MP4))}
    assert upload.body == MP4
    assert "authorization" not in upload.headers
    assert share.json == {
        "files": [{"id": "F1", "title": "Video"}],
        "channel_id": CHANNEL,
        "thread_ts": TS,
    }


async def test_a_message_to_a_person_has_a_channel_of_its_own() -> None:
    """Slack says which; files are shared there."""
    async with slack(channel="U0123ABCDEF") as (service, handler, _):
        service.told["chat.postMessage"] = [Answer(200, {"ok": True, "channel": "D77", "ts": TS})]
        result = await handler(on(service, "video.mp4"), run())
    assert result["channel"] == "D77"
    share = service.named("files.completeUploadExternal")[0].json
    assert share["channel_id"] == "D77"


async def test_pictures_are_in_the_message_and_not_in_its_thread() -> None:
    """A bot shows them as a webhook does."""
    async with slack() as (service, handler, _):
        result = await handler(on(service, "0.png"), run())
    assert result["uploaded"] == 0
    assert service.names == ["chat.postMessage"]


async def test_pictures_that_slack_cannot_fetch_go_into_the_thread() -> None:
    """The message is refused whole, and sent again at once without them."""
    async with slack() as (service, handler, _):
        refusal = {"ok": False, "error": "invalid_blocks", "errors": ["downloading image failed"]}
        service.told["chat.postMessage"] = [Answer(200, refusal)]
        result = await handler(on(service, "0.png", "1.png"), run())
    assert result["uploaded"] == 2
    first, second = service.named("chat.postMessage")
    kinds = [[block["type"] for block in each.json["blocks"]] for each in (first, second)]
    assert "image" in kinds[0]
    assert "image" not in kinds[1]
    assert service.named("place-2")[0].body == PNG
    assert len(service.named("files.completeUploadExternal")[0].json["files"]) == 2


async def test_a_webhook_is_told_again_without_pictures() -> None:
    """Its refusal is a 400 with a word for a body."""
    async with slack(bot=False) as (service, handler, _):
        service.told["s3cret"] = [Answer(400, b"invalid_blocks")]
        assert await handler(on(service, "0.png"), run()) == {"sent": True}
    assert service.names == ["s3cret", "s3cret"]


async def test_a_message_that_is_refused_without_pictures_is_dead() -> None:
    """There is nothing left to leave out."""
    async with slack(bot=False) as (service, handler, _):
        service.told["s3cret"] = [Answer(400, b"invalid_blocks")] * 2
        with pytest.raises(GiveUp, match="invalid_blocks: Slack refuses the message"):
            await handler(on(service, "0.png"), run())


@pytest.mark.parametrize(
    ("name", "answer", "why"),
    [
        ("video.mp4", Answer(404), "Video: it could not be read (HTTP 404)"),
        (
            "files.getUploadURLExternal",
            Answer(200, {"ok": False, "error": "missing_scope", "needed": "files:write"}),
            "missing_scope: give the bot the scopes chat:write and files:write",
        ),
        ("files.getUploadURLExternal", Answer(200, {"ok": True}), "Slack returned no upload URL"),
        (
            "files.getUploadURLExternal",
            Answer(200, {"ok": True, "upload_url": "http://10.0.0.1/s3cret", "file_id": "F1"}),
            "10.0.0.1 is a private address",
        ),
        (
            "files.getUploadURLExternal",
            Answer(200, {"ok": True, "upload_url": "s3cret", "file_id": "F1"}),
            "Slack returned no upload URL",
        ),
        ("place-1", Answer(413), "Slack refuses the file"),
        ("place-1", None, "RemoteProtocolError"),
        ("files.completeUploadExternal", Answer(500), "HTTP 500"),
    ],
)
async def test_an_upload_that_fails_leaves_the_text_with_its_link(
    name: str, answer: Answer | None, why: str
) -> None:
    """Done, and the text stands there once."""
    async with slack() as (service, handler, _):
        service.told[name] = [answer]
        result = await handler(on(service, "video.mp4"), run())
    assert result["uploaded"] == 0
    assert why in str(result["not_uploaded"])
    assert "s3cret" not in str(result)
    assert service.names.count("chat.postMessage") == 1


async def test_a_message_whose_answer_was_lost_is_found_and_not_sent_again() -> None:
    """F25: by the key that it carries; its thread gets the video."""
    async with slack() as (service, handler, _):
        service.told["chat.postMessage"] = [None]
        with pytest.raises(Retry):
            await handler(on(service, "video.mp4"), run())
        [post] = service.named("chat.postMessage")
        there = {"ts": TS, "metadata": post.json["metadata"], "text": "x"}
        other = {"ts": "1.1", "metadata": {"event_type": "x", "event_payload": {"key": "other"}}}
        answer = Answer(200, {"ok": True, "messages": ["?", {"ts": "1.0"}, other, there]})
        service.told["conversations.history"] = [answer]
        result = await handler(on(service, "video.mp4"), run(attempt=2))
    assert result == {"sent": True, "channel": CHANNEL, "ts": TS, "uploaded": 1}
    assert service.names.count("chat.postMessage") == 1
    [look] = service.named("conversations.history")
    assert look.form["include_all_metadata"] == "true"
    assert float(look.form["oldest"]) < float(TS)


async def test_a_thread_that_has_its_video_gets_no_second() -> None:
    """F25: where the run was cut off after the upload."""
    async with slack() as (service, handler, _):
        key = {"event_type": "wavehook_message", "event_payload": {"key": run().key}}
        there = {"ts": TS, "metadata": key, "reply_count": 1}
        service.told["conversations.history"] = [Answer(200, {"ok": True, "messages": [there]})]
        result = await handler(on(service, "video.mp4"), run(attempt=2))
    assert result == {"sent": True, "channel": CHANNEL, "ts": TS}
    assert service.names == ["conversations.history"]


@pytest.mark.parametrize(
    "answer",
    [Answer(200, {"ok": False, "error": "missing_scope"}), Answer(500), Answer(200, {"ok": True})],
)
async def test_who_may_not_look_sends_again(answer: Answer) -> None:
    """At least once: a message twice is better than none."""
    async with slack(upload=0) as (service, handler, _):
        service.told["conversations.history"] = [answer]
        result = await handler(event(), run(attempt=2))
    assert result["ts"] == TS


@pytest.mark.parametrize("bot", [True, False])
async def test_a_429_is_waited_out_or_pauses_the_handler(bot: bool) -> None:
    """F27: as Retry-After says."""
    name = "chat.postMessage" if bot else "s3cret"
    busy = {"ok": False, "error": "ratelimited"} if bot else b"rate_limited"
    async with slack(bot=bot, upload=0) as (service, handler, time):
        service.told[name] = [Answer(429, busy, {"retry-after": "3"})]
        assert (await handler(event(), run()))["sent"] is True
        assert time.slept == [3.0]
        service.told[name] = [Answer(429, busy, {"retry-after": "300"})]
        with pytest.raises(Retry, match=r"^127\.0\.0\.1: asks to wait 300 s$") as retry:
            await handler(event(), run())
    assert (retry.value.after, retry.value.pause) == (300.0, True)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(500),
        Answer(503, b"x"),
        Answer(200, {"ok": False, "error": "internal_error"}),
        Answer(200, {"ok": False, "error": "ratelimited"}),
        Answer(429),
        None,
    ],
)
async def test_a_passing_trouble_is_tried_again(answer: Answer | None) -> None:
    """F23: by the policy."""
    async with slack() as (service, handler, _):
        service.told["chat.postMessage"] = [answer]
        with pytest.raises(Retry) as retry:
            await handler(event(), run())
    assert "s3cret" not in str(retry.value)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(200, {"ok": False, "error": "invalid_auth"}), "invalid_auth: set the token of a"),
        (Answer(401, {"ok": False, "error": "token_revoked"}), "token_revoked: set the token"),
        (Answer(200, {"ok": False, "error": "not_in_channel"}), "invite the bot to the channel"),
        (Answer(200, {"ok": False, "error": "is_archived"}), "a channel that is not archived"),
        (
            Answer(200, {"ok": False, "error": "msg_too_long"}),
            "msg_too_long: Slack refuses the message",
        ),
        (Answer(200, {"ok": False, "error": "<b>s3cret"}), "no_reason: Slack refuses the message"),
        (Answer(200, {"ok": False}), "no_reason: Slack refuses the message"),
        (Answer(200, b"<html>"), "no_reason: Slack refuses the message"),
    ],
)
async def test_a_refusal_says_what_to_do(answer: Answer, words: str) -> None:
    """F23, F16: Slack's word, where it is one, and ours."""
    async with slack() as (service, handler, _):
        service.told["chat.postMessage"] = [answer]
        with pytest.raises(GiveUp, match=words) as gone:
            await handler(event(), run())
    assert "s3cret" not in str(gone.value)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            Answer(404, b"no_service"),
            "no_service: the webhook does not exist any more; create a new one",
        ),
        (Answer(410, b"channel_is_archived"), "choose a channel that is not archived"),
        (Answer(403, b"action_prohibited"), "action_prohibited: Slack refuses the message"),
        (Answer(400, b"<html>s3cret"), "no_reason: Slack refuses the message"),
    ],
)
async def test_a_webhooks_refusal_says_what_to_do(answer: Answer, words: str) -> None:
    """F23, F16: neither the URL nor the body is in it."""
    async with slack(bot=False) as (service, handler, _):
        service.told["s3cret"] = [answer]
        with pytest.raises(GiveUp, match=words) as gone:
            await handler(event(), run())
    assert "s3cret" not in str(gone.value)


async def test_the_context_chooses_among_channels() -> None:
    """By the name of a target; an id in a context is none unless it is named so."""
    targets = {"design": "C0DESIGN", "C0OPEN": "C0OPEN"}
    async with slack(targets=targets, target_from="notify.slack", upload=0) as (
        service,
        handler,
        _,
    ):
        for name in ("design", "C0OPEN", "C0CLOSED", None):
            await handler(event(context={"notify": {"slack": name}}), run())
    posts = service.named("chat.postMessage")
    assert [each.json["channel"] for each in posts] == ["C0DESIGN", "C0OPEN", CHANNEL, CHANNEL]
    assert "not in `targets`" in str(posts[2].json["blocks"])


async def test_a_dead_archive_is_said() -> None:
    """With the end of the link."""
    async with slack(upload=0) as (service, handler, _):
        await handler(event(), run(earlier=lost()))
    blocks = str(service.requests[0].json["blocks"])
    assert (
        "keep failed: storage.example.com: HTTP 403; the links here expire on 2026-08-08" in blocks
    )


async def test_check_asks_slack_whose_the_token_is() -> None:
    """And whether it may do what is needed."""
    async with slack() as (service, handler, _):
        assert await handler.check() == "Slack knows the token as wavehook in Studio"
        told = {"ok": True, "user": "w", "team": "t"}
        service.told["auth.test"] = [
            Answer(200, told, {"x-oauth-scopes": "chat:write"}),
            Answer(200, told, {"x-oauth-scopes": "files:write"}),
            Answer(200, {"ok": False, "error": "invalid_auth"}),
        ]
        assert (await handler.check()).endswith("without the scope files:write it uploads nothing")
        with pytest.raises(GiveUp, match="lacks the scope chat:write"):
            await handler.check()
        with pytest.raises(GiveUp, match="invalid_auth: set the token"):
            await handler.check()
    assert set(service.names) == {"auth.test"}


async def test_check_of_a_webhook_connects_and_posts_nothing() -> None:
    """More cannot be asked."""
    async with slack(bot=False) as (service, handler, _):
        found = await handler.check()
    assert "takes connections" in found
    assert "tested by a message only" in found
    assert service.requests == []


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({}, "url: missing, expected the URL of an incoming webhook, or a `token`"),
        ({"token": TOKEN}, "channel: missing, expected the id of a channel, such as C0123ABCDEF"),
        ({"token": "s3cret", "channel": CHANNEL}, "token: '…', expected"),
        ({"channel": CHANNEL, "url": "https://x.example"}, "token: missing, expected a bot's tok"),
        ({"token": TOKEN, "channel": "#general"}, "channel: '#general', expected"),
        (
            {"token": TOKEN, "channel": CHANNEL, "url": "https://x.example/s3cret"},
            "url: set together with `token`, expected only one of the two",
        ),
        (
            {"token": TOKEN, "targets": {"a": "s3cret"}, "target_from": "a"},
            "targets: '…', each expected to be the id of a channel",
        ),
        (
            {"url": "https://x.example", "targets": {"a": "s3cret"}, "target_from": "a"},
            "targets: '…', each expected to be an http or https URL",
        ),
    ],
)
def test_faults_show_at_start_without_secrets(settings: dict[str, Any], fault: str) -> None:
    """F16: each names its key and what was expected."""
    with pytest.raises(SettingsError) as error:
        create("team", settings)
    assert f"handlers.team.{fault}" in str(error.value)
    assert "s3cret" not in str(error.value)


def test_settings_do_not_show_secrets() -> None:
    """F16: neither token nor URL."""
    assert "s3cret" not in repr(SlackSettings(token=TOKEN, url="https://x.example/s3cret"))


def test_without_slack_sdk_it_says_so_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loader names the extra."""
    monkeypatch.setitem(sys.modules, "slack_sdk.models.blocks", None)
    with pytest.raises(ImportError):
        create("team", {"url": "https://x.example"})

"""`telegram` against a real server on this machine that answers as Telegram does."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from receiver.errors import GiveUp, Retry, SettingsError
from receiver.event import Event
from receiver.handlers.chat.telegram import Telegram, TelegramSettings, create
from tests.support import chat_limits as limits
from tests.support.chat_events import HOSTILE, NOW, event, run
from tests.support.chat_service import MP4, PNG, Answer, Request, Service, serving
from tests.support.clocks import Clock

TOKEN = "1234:s3cret-s3cret-s3cret"
CHAT = "-1001234567890"


def says(request: Request) -> Answer:
    """As Telegram does where all is well."""
    result: Any = {"message_id": 42}
    if request.name == "getMe":
        result = {"id": 1234, "is_bot": True, "username": "wavehook_bot"}
    return Answer(200, {"ok": True, "result": result})


def no(code: int, description: str, **parameters: Any) -> Answer:
    """As Telegram says no."""
    body = {"ok": False, "error_code": code, "description": description}
    return Answer(code, body | ({"parameters": parameters} if parameters else {}))


FETCH = no(400, "Bad Request: failed to get HTTP URL content")


@asynccontextmanager
async def telegram(**settings: Any) -> AsyncIterator[tuple[Service, Telegram, Clock]]:
    async with serving(says) as service:
        chosen = {"token": TOKEN, "chat": CHAT, "allow": ["127.0.0.1"], "api": service.url}
        time = Clock(NOW)
        handler = Telegram(
            TelegramSettings.model_validate(chosen | settings), clock=time, sleep=time.sleep
        )
        try:
            yield service, handler, time
        finally:
            await handler.close()


def on(service: Service, *names: str, **body: Any) -> Event:
    """An event whose outputs the service has."""
    return event(outputs=[f"{service.url}/{name}" for name in names], **body)


async def test_the_text_becomes_the_caption_of_the_video() -> None:
    """Telegram fetches it from its URL; nothing is read here."""
    async with telegram() as (service, handler, _):
        result = await handler(on(service, "video.mp4"), run())
    assert result == {"sent": True, "message": 42, "uploaded": 1}
    send, edit = service.requests
    assert send.path == f"/bot{TOKEN}/sendMessage"
    assert send.json["chat_id"] == CHAT
    assert send.json["link_preview_options"] == {"is_disabled": True}
    assert "parse_mode" not in send.json
    limits.telegram(send.json["text"], send.json["entities"], 4096)
    assert edit.path == f"/bot{TOKEN}/editMessageMedia"
    media = edit.json["media"]
    assert (edit.json["message_id"], media["type"]) == (42, "video")
    assert media["media"] == f"{service.url}/video.mp4"
    limits.telegram(media["caption"], media["caption_entities"], 1024)


async def test_what_telegram_cannot_fetch_is_uploaded() -> None:
    """Read back byte by byte, with its caption."""
    async with telegram() as (service, handler, _):
        service.told["editMessageMedia"] = [FETCH]
        result = await handler(on(service, "video.mp4"), run())
    assert result["uploaded"] == 1
    upload = service.named("editMessageMedia")[1]
    assert upload.parts["file"] == ("video.mp4", "video/mp4", MP4)
    assert upload.parts["chat_id"][2] == CHAT.encode()
    assert upload.parts["message_id"][2] == b"42"
    media = json.loads(upload.parts["media"][2])
    assert (media["type"], media["media"]) == ("video", "attach://file")
    assert media["caption"].startswith("Video ready\n")


async def test_a_picture_is_a_photo_and_only_the_first_result_is_shown() -> None:
    """A message holds one; the others have their links."""
    async with telegram() as (service, handler, _):
        service.told["editMessageMedia"] = [FETCH]
        result = await handler(on(service, "0.png", "1.png"), run())
    assert result["uploaded"] == 1
    first, second = service.named("editMessageMedia")
    assert first.json["media"]["type"] == "photo"
    assert second.parts["file"] == ("image-1.png", "image/png", PNG)
    assert service.requests[0].json["text"].count("Image ") == 2


@pytest.mark.parametrize(
    ("edits", "files", "why"),
    [
        ([FETCH], [Answer(404)], "Video: it could not be read (HTTP 404)"),
        (
            [FETCH, no(413, "Request Entity Too Large")],
            [],
            "HTTP 413: Telegram refuses the message",
        ),
        (
            [FETCH, no(400, "Bad Request: PHOTO_INVALID_DIMENSIONS")],
            [],
            "Telegram refuses the message",
        ),
        ([Answer(502)], [], "HTTP 502"),
        ([None], [], "RemoteProtocolError"),
    ],
)
async def test_a_video_that_cannot_be_shown_leaves_the_text_with_its_link(
    edits: list[Answer | None], files: list[Answer | None], why: str
) -> None:
    """Done, and the text stands there once."""
    async with telegram() as (service, handler, _):
        service.told |= {"editMessageMedia": edits, "video.mp4": files}
        result = await handler(on(service, "video.mp4"), run())
    assert result["uploaded"] == 0
    assert why in str(result["not_uploaded"])
    assert service.names.count("sendMessage") == 1
    assert "text_link" in str(service.requests[0].json["entities"])


async def test_what_is_no_video_or_picture_is_not_shown() -> None:
    """Nor anything where uploads are off."""
    async with telegram() as (service, handler, _):
        assert await handler(event(outputs=["https://x.example/a.zip"]), run()) == {
            "sent": True,
            "message": 42,
        }
        assert service.names == ["sendMessage"]
    async with telegram(upload=0) as (service, handler, _):
        await handler(on(service, "video.mp4"), run())
        assert service.names == ["sendMessage"]


async def test_hostile_text_is_code() -> None:
    """F17: Telegram looks for nothing in it, however it is written."""
    async with telegram(upload=0) as (service, handler, _):
        await handler(event(input={"prompt": HOSTILE}), run())
    sent = service.requests[0].json
    limits.telegram(sent["text"], sent["entities"], 4096)
    assert "everyone" not in limits.outside(sent["text"], sent["entities"])


async def test_a_429_is_waited_out_or_pauses_the_handler() -> None:
    """F27: as `parameters.retry_after` says, or the header where there is none."""
    async with telegram(upload=0) as (service, handler, time):
        service.told["sendMessage"] = [no(429, "Too Many Requests", retry_after=7)]
        await handler(event(), run())
        assert time.slept == [7.0]
        service.told["sendMessage"] = [
            Answer(429, {"ok": False, "parameters": {"retry_after": "x"}}, {"retry-after": "2"})
        ]
        await handler(event(), run())
        assert time.slept == [7.0, 2.0]
        service.told["sendMessage"] = [no(429, "Too Many Requests", retry_after=35)]
        with pytest.raises(Retry, match=r"^127\.0\.0\.1: asks to wait 35 s$") as retry:
            await handler(event(), run())
    assert (retry.value.after, retry.value.pause) == (35.0, True)


@pytest.mark.parametrize("answer", [Answer(500), Answer(502, b"x"), Answer(429), None])
async def test_a_passing_trouble_is_tried_again(answer: Answer | None) -> None:
    """F23, F16: the token stands in the URL, and in no error."""
    async with telegram() as (service, handler, _):
        service.told["sendMessage"] = [answer]
        with pytest.raises(Retry) as retry:
            await handler(event(), run())
    assert "s3cret" not in str(retry.value)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (no(401, "Unauthorized"), "the token is not accepted; set the one from BotFather"),
        (no(404, "Not Found"), "the token is not accepted"),
        (no(400, "Bad Request: chat not found"), "does not know this chat; add the bot to it"),
        (no(403, "Forbidden: bot was kicked from the group chat"), "the bot was removed"),
        (no(403, "Forbidden: bot was blocked by the user"), "the person has blocked the bot"),
        (
            no(400, "Bad Request: not enough rights to send text"),
            "give the bot the right to write there",
        ),
        (
            no(
                400,
                "Bad Request: group chat was upgraded to a supergroup chat",
                migrate_to_chat_id=-100,
            ),
            "the group has a new id",
        ),
        (no(400, f"Bad Request: can't parse {TOKEN}"), "Telegram refuses the message"),
        (Answer(200, {"ok": False}), "HTTP 200"),
    ],
)
async def test_a_refusal_says_what_to_do(answer: Answer, words: str) -> None:
    """F23, F16: in our own words; Telegram's may repeat what was sent."""
    async with telegram() as (service, handler, _):
        service.told["sendMessage"] = [answer]
        with pytest.raises((GiveUp, Retry), match=words) as gone:
            await handler(event(), run())
    assert "s3cret" not in str(gone.value)


async def test_an_answer_without_an_id_is_done() -> None:
    """There is nothing to edit then."""
    async with telegram() as (service, handler, _):
        service.told["sendMessage"] = [Answer(200, {"ok": True, "result": True})]
        assert await handler(on(service, "video.mp4"), run()) == {"sent": True}


async def test_the_context_chooses_among_chats() -> None:
    """By the name of a target."""
    async with telegram(targets={"me": "77"}, target_from="notify", upload=0) as (
        service,
        handler,
        _,
    ):
        await handler(event(context={"notify": "me"}), run())
        await handler(event(context={"notify": "-666"}), run())
    assert [each.json["chat_id"] for each in service.requests] == ["77", CHAT]


async def test_check_asks_who_the_bot_is_and_for_the_chats() -> None:
    """Nothing is posted."""
    async with telegram(targets={"me": "77"}, target_from="notify") as (service, handler, _):
        found = await handler.check()
        assert found == "Telegram knows the token as wavehook_bot, and the bot knows 2 chats"
        service.told["getChat"] = [no(400, "Bad Request: chat not found")]
        with pytest.raises(GiveUp, match="does not know this chat"):
            await handler.check()
    assert set(service.names) == {"getMe", "getChat"}


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"token": "s3cret", "chat": CHAT}, "token: '…', expected"),
        ({"token": TOKEN}, "chat: missing, expected the id of a chat, such as -1001234567890"),
        ({"token": TOKEN, "chat": "@x y"}, "chat: '@x y', expected"),
        (
            {"token": TOKEN, "chat": CHAT, "targets": {"a": "s3cret"}, "target_from": "a"},
            "targets: '…', each expected to be the id of a chat",
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
    """F16: the token."""
    assert "s3cret" not in repr(TelegramSettings(token=TOKEN, chat=CHAT))

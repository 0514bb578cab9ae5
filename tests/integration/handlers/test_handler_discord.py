"""`discord` against a real server on this machine that answers as Discord does."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from receiver.errors import GiveUp, Retry, SettingsError
from receiver.event import Event
from receiver.handlers.chat.discord import Discord, DiscordSettings, create
from submitter.prediction import JSON
from tests.support.chat_events import NOW, event, failed, kept, lost, run
from tests.support.chat_service import MP4, PNG, Answer, Request, Service, serving
from tests.support.clocks import Clock

HOOK = "/api/webhooks/1234/s3cret"
ID = "9001"


def says(request: Request) -> Answer:
    """As Discord does where all is well."""
    if request.method == "GET":
        return Answer(200, {"id": "1234", "name": "Wavehook\u202e", "channel_id": "7"})
    if request.method == "POST":
        return Answer(200 if request.query.get("wait") == ["true"] else 204, {"id": ID})
    edit = json.loads(request.parts["payload_json"][2])
    there = [
        {"id": each["id"] if each["id"] != "0" else f"7{n}"}
        for n, each in enumerate(edit["attachments"])
    ]
    return Answer(200, {"id": ID, "attachments": there})


@asynccontextmanager
async def discord(
    query: str = "", **settings: Any
) -> AsyncIterator[tuple[Service, Discord, Clock]]:
    async with serving(says) as service:
        chosen = {"url": f"{service.url}{HOOK}{query}", "allow": ["127.0.0.1"], **settings}
        time = Clock(NOW)
        handler = Discord(DiscordSettings.model_validate(chosen), clock=time, sleep=time.sleep)
        try:
            yield service, handler, time
        finally:
            await handler.close()


def on(service: Service, *names: str, **body: Any) -> Event:
    """An event whose outputs the service has."""
    return event(outputs=[f"{service.url}/{name}" for name in names], **body)


async def test_the_text_goes_out_and_is_edited_to_hold_the_video() -> None:
    """Both are read back: the payload, and each byte of the file."""
    async with discord() as (service, handler, _):
        result = await handler(on(service, "video.mp4"), run())
    assert result == {"sent": True, "message": ID, "uploaded": 1}
    post, _get, patch = service.requests
    assert (post.method, post.path) == ("POST", f"{HOOK}?wait=true")
    assert post.json["embeds"][0]["title"] == "Video ready"
    assert (patch.method, patch.path) == ("PATCH", f"{HOOK}/messages/{ID}")
    name, kind, content = patch.parts["files[0]"]
    assert (name, kind, content) == ("video.mp4", "video/mp4", MP4)
    edit = json.loads(patch.parts["payload_json"][2])
    assert edit["attachments"] == [{"id": "0", "filename": "video.mp4"}]
    assert edit["allowed_mentions"] == {"parse": []}


async def test_each_file_keeps_those_before_it() -> None:
    """And a picture that is attached is not shown from its link as well."""
    async with discord() as (service, handler, _):
        result = await handler(on(service, "0.png", "1.png"), run())
    assert result["uploaded"] == 2
    first, second = (json.loads(each.parts["payload_json"][2]) for each in service.named(ID))
    assert [each["id"] for each in second["attachments"]] == ["70", "0"]
    assert first["embeds"][0]["image"]["url"].endswith("/1.png")
    assert "image" not in second["embeds"][0]
    assert service.named(ID)[1].parts["files[0]"][2] == PNG


async def test_a_thread_stays_the_thread() -> None:
    """Its id stands in the URL, and goes along when the message is edited."""
    async with discord(query="?thread_id=77") as (service, handler, _):
        await handler(on(service, "video.mp4"), run())
    assert service.requests[0].query == {"thread_id": ["77"], "wait": ["true"]}
    assert service.named(ID)[0].query == {"thread_id": ["77"]}


@pytest.mark.parametrize(
    ("name", "answer", "why"),
    [
        ("video.mp4", Answer(404), "it could not be read (HTTP 404)"),
        ("video.mp4", Answer(200, b"<html>no</html>" * 9), "it is not a video, picture or sound"),
        ("video.mp4", Answer(200, b""), "it has 0 bytes; the limit is 10485760"),
        (
            "video.mp4",
            Answer(200, b"", {"content-length": "99999999"}),
            "it has 99999999 bytes; the limit is 10485760",
        ),
        ("video.mp4", Answer(200, MP4, {"content-length": "x"}), "it could not be read"),
        ("video.mp4", None, "it could not be read (RemoteProtocolError)"),
        ("video.mp4", Answer(302, b"", {"location": "http://10.0.0.1/x"}), "10.0.0.1 is a private"),
        (ID, Answer(413, {"code": 40005}), "the file is too large for the server"),
        (ID, Answer(500), "HTTP 500"),
        (ID, None, "RemoteProtocolError"),
    ],
)
async def test_an_upload_that_fails_leaves_the_text_with_its_link(
    name: str, answer: Answer | None, why: str
) -> None:
    """F35: done, and not again: that would send the text twice."""
    async with discord() as (service, handler, _):
        service.told[name] = [answer, answer]
        result = await handler(on(service, "video.mp4"), run())
    assert result["uploaded"] == 0
    told = str(result["not_uploaded"])
    assert told.startswith("['Video: ")
    assert why in told
    assert "video.mp4" not in told
    assert service.names.count("s3cret") == 1


async def test_a_video_that_is_cut_short_is_not_sent_as_a_whole_one() -> None:
    """F35: the request breaks off too, so that nobody sees half a video."""
    async with discord() as (service, handler, _):
        longer = {"content-length": str(len(MP4) + 9)}
        service.told["video.mp4"] = [Answer(200, MP4, longer, ends=True)]
        result = await handler(on(service, "video.mp4"), run())
    assert result["uploaded"] == 0
    assert service.named(ID) == []


async def test_uploads_can_be_turned_off() -> None:
    """The link is all there is then."""
    async with discord(upload=0) as (service, handler, _):
        result = await handler(on(service, "video.mp4"), run())
    assert result == {"sent": True, "message": ID}
    assert len(service.requests) == 1


async def test_no_time_for_an_upload_is_none_for_a_second_attempt() -> None:
    """F24: a run that would be cut off in an upload ends well instead."""
    async with discord() as (service, handler, _):
        result = await handler(on(service, "video.mp4"), run(seconds=1.0))
    assert result["not_uploaded"] == ["Video: it took too long"]


async def test_the_lasting_link_is_shown_and_the_apis_file_sent() -> None:
    """After an archive."""
    async with discord() as (service, handler, _):
        found = on(service, "video.mp4")
        earlier = kept()
        files = earlier["keep"].result["files"]  # type: ignore[index, call-overload]
        files[0]["source"] = f"{service.url}/video.mp4"  # type: ignore[index, call-overload]
        result = await handler(found, run(earlier=earlier))
    assert "keep.example.com" in service.requests[0].json["embeds"][0]["description"]
    assert result["uploaded"] == 1


async def test_a_flagged_video_is_neither_linked_nor_sent() -> None:
    """It is said."""
    async with discord() as (service, handler, _):
        await handler(on(service, "video.mp4", has_nsfw_contents=[True]), run())
    [post] = service.requests
    text = post.json["embeds"][0]["description"]
    assert "not safe for work" in text
    assert "http" not in text


async def test_a_dead_archive_is_said() -> None:
    """The message goes out all the same."""
    async with discord(upload=0) as (service, handler, _):
        await handler(failed(5000), run(earlier=lost()))
    assert "keep failed" in service.requests[0].json["embeds"][0]["description"]


@pytest.mark.parametrize(
    ("answer", "waited"),
    [
        (Answer(429, {"retry_after": 0.65, "global": False}), 0.65),
        (Answer(429, {}, {"retry-after": "2"}), 2.0),
        (Answer(429, {"retry_after": 1.0}, {"retry-after": "2"}), 2.0),
        (Answer(429, {}, {"x-ratelimit-reset-after": "1.5"}), 1.5),
    ],
)
async def test_a_429_is_waited_out_where_there_is_time(answer: Answer, waited: float) -> None:
    """F27: in the run, so that a burst uses up no attempts (F26)."""
    async with discord(upload=0) as (service, handler, time):
        service.told["s3cret"] = [answer]
        result = await handler(event(), run())
    assert result["message"] == ID
    assert time.slept == [pytest.approx(waited)]
    assert len(service.requests) == 2


async def test_a_long_429_pauses_the_handler() -> None:
    """F27: for all its events; the error names the host alone (F16)."""
    async with discord() as (service, handler, _):
        service.told["s3cret"] = [Answer(429, {"retry_after": 900.5})]
        with pytest.raises(Retry, match=r"^127\.0\.0\.1: asks to wait 900 s$") as retry:
            await handler(event(), run())
    assert (retry.value.after, retry.value.pause) == (900.5, True)


async def test_the_last_of_an_allowance_is_not_overdrawn() -> None:
    """F26: Discord says in each answer what is left; the next request waits before it is sent."""
    spent = {"x-ratelimit-remaining": "0", "x-ratelimit-reset-after": "1.25"}
    async with discord() as (service, handler, time):
        service.told["s3cret"] = [Answer(200, {"id": ID}, spent)]
        await handler(on(service, "video.mp4"), run())
        await handler(event(outputs=[]), run())
    assert time.slept == [pytest.approx(1.25)]
    assert service.names == ["s3cret", ID, "s3cret"]


async def test_a_clock_that_steps_back_holds_nobody_longer() -> None:
    """F6: no more than what Discord asked for."""
    spent = {"x-ratelimit-remaining": "0", "x-ratelimit-reset-after": "1.25"}
    async with discord(upload=0) as (service, handler, time):
        service.told["s3cret"] = [Answer(200, {"id": ID}, spent)]
        await handler(event(), run())
        time.now -= 9000.0
        await handler(event(), run())
    assert time.slept == [pytest.approx(1.25)]


async def test_a_429_for_an_upload_is_tried_once_more() -> None:
    """The file is read again; the text is not sent again."""
    async with discord() as (service, handler, time):
        service.told[ID] = [Answer(429, {"retry_after": 0.5})]
        result = await handler(on(service, "video.mp4"), run())
    assert result["uploaded"] == 1
    assert time.slept == [pytest.approx(0.5)]
    assert service.names == ["s3cret", ID, ID]


@pytest.mark.parametrize("answer", [Answer(500), Answer(502), Answer(503), Answer(302), None])
async def test_a_passing_trouble_is_tried_again(answer: Answer | None) -> None:
    """F23, F16: by the policy, and without a word of the URL."""
    async with discord() as (service, handler, _):
        service.told["s3cret"] = [answer]
        with pytest.raises(Retry, match=r"^127\.0\.0\.1: \w[\w ]+$") as retry:
            await handler(event(), run())
    assert "s3cret" not in str(retry.value)
    assert not retry.value.pause


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            Answer(404, {"code": 10015, "message": "s3cret"}),
            "code 10015: the webhook does not exist any more",
        ),
        (
            Answer(401, {"code": 50027}),
            "code 50027: the webhook does not exist any more; create a new one",
        ),
        (Answer(401), "the webhook does not exist any more"),
        (Answer(400, {"code": 50035}), "code 50035: Discord refuses a field of the message"),
        (Answer(400, {"code": 220001}), r"\?thread_id="),
        (Answer(400, {"code": True}), "Discord refuses the message"),
        (Answer(403, b"s3cret"), "the webhook does not exist any more"),
    ],
)
async def test_a_refusal_says_what_to_do(answer: Answer, words: str) -> None:
    """F23, F16: dead at once, in our own words."""
    async with discord() as (service, handler, _):
        service.told["s3cret"] = [answer]
        with pytest.raises(GiveUp, match=words) as gone:
            await handler(event(), run())
    assert "s3cret" not in str(gone.value)


async def test_an_answer_without_an_id_is_done() -> None:
    """There is nothing to edit then; an id that is none is not put into a path."""
    async with discord() as (service, handler, _):
        service.told["s3cret"] = [Answer(200, {"id": "../1"})]
        assert await handler(on(service, "video.mp4"), run()) == {"sent": True}


async def test_the_context_chooses_among_targets() -> None:
    """By a name that the settings know; a URL in a context is no target (F34)."""
    async with discord() as (service, _, __):
        hooks = {"design": f"{service.url}/api/webhooks/2/design"}
        chosen = DiscordSettings(
            url=service.url + HOOK,
            targets=hooks,
            target_from="notify.discord",
            allow=("127.0.0.1",),
        )
        time = Clock(NOW)
        handler = Discord(chosen, clock=time, sleep=time.sleep)
        names: list[JSON] = ["design", None, "other", "http://10.0.0.1/x", ["design"]]
        for name in names:
            await handler(event(context={"notify": {"discord": name}}, outputs=[]), run())
        await handler(event(context={}, outputs=[]), run())
        await handler.close()
    assert service.names == ["design", *["s3cret"] * 5]
    notes = [each.json["embeds"][0].get("description", "") for each in service.requests]
    told = [False, False, True, True, True, False]
    assert ["names another target, which is not in" in note for note in notes] == told
    assert "10.0.0.1" not in str(notes)


async def test_without_a_usual_place_only_named_ones_are_told() -> None:
    """A context that names none asks for nothing; one that names a wrong one is a fault."""
    chosen = DiscordSettings(targets={"a": "https://discord.com/x"}, target_from="notify")
    handler = Discord(chosen, None, clock=Clock(NOW))
    assert await handler(event(context={}), run()) == {"sent": False}
    with pytest.raises(GiveUp, match="context names a target that is not in `targets`"):
        await handler(event(context={"notify": "b"}), run())


async def test_a_template_is_the_text() -> None:
    """Notes stand below it; where it cannot be rendered, the standard message says so."""
    settings = {"template": "**{{ prompt }}** {{ 1 / (more - 2) }}", "upload": 0}
    async with discord() as (service, _, __):
        handler = create("team", {"url": service.url + HOOK, "allow": "127.0.0.1", **settings})
        await handler(event(input={"prompt": "*a*"}), run(3e9, earlier=lost()))
        await handler(event(outputs=["https://x.example/a.png"] * 12), run(3e9))
        await handler.close()
    first, second = (each.json["embeds"][0] for each in service.requests)
    assert first["description"].startswith("**\\*a\\*** \\-0.5\nkeep failed")
    assert "fields" not in first
    assert "The template could not be rendered" in second["description"]
    assert second["fields"]


async def test_check_asks_for_each_webhook_and_posts_nothing() -> None:
    """It says what Discord calls them, without a control character."""
    async with discord() as (service, handler, _):
        assert await handler.check() == "Discord knows the webhook as Wavehook"
        service.told["s3cret"] = [Answer(404, {"code": 10015})]
        with pytest.raises(GiveUp, match="the webhook does not exist any more"):
            await handler.check()
    assert {each.method for each in service.requests} == {"GET"}


async def test_an_inside_target_is_refused_for_good() -> None:
    """F34: what `allow` does not name is not called."""
    async with discord(allow=[]) as (service, handler, _):
        with pytest.raises(GiveUp, match=r"127\.0\.0\.1 is a loopback address"):
            await handler(event(), run())
    assert service.requests == []


async def test_a_closed_handler_opens_again() -> None:
    """F41: where the app stops and starts around every request."""
    async with discord(upload=0) as (service, handler, _):
        for _ in range(2):
            await handler(event(), run())
            await handler.close()
    assert len(service.requests) == 2


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({}, "url: missing, expected the URL of a webhook"),
        ({"url": "s3cret"}, "url: '…', expected an http or https URL"),
        (
            {"url": "https://x.example", "targets": {"a": "s3cret"}},
            "targets: '…', each expected to be an",
        ),
        ({"url": "https://x.example", "targets": {"a": "https://y.example"}}, "target_from: miss"),
        ({"url": "https://x.example", "target_from": "a"}, "targets: missing, expected a table"),
        ({"url": "https://x.example", "target_from": "a..b"}, "target_from: 'a..b', expected"),
        ({"url": "https://x.example", "upload": "much"}, "upload: 'much', expected a size such"),
        ({"url": "https://x.example", "upload": -1}, "upload: -1, expected"),
        ({"url": "https://x.example", "prompt": 1001}, "prompt: 1001, expected"),
        ({"url": "https://x.example", "allow": ["/"]}, "allow: ['/'], expected host"),
        ({"url": "https://x.example", "chanel": 1}, "chanel: unknown key"),
    ],
)
def test_faults_show_at_start_without_secrets(settings: dict[str, Any], fault: str) -> None:
    """F16: each names its key and what was expected."""
    with pytest.raises(SettingsError) as error:
        create("team", settings)
    assert f"handlers.team.{fault}" in str(error.value)
    assert "s3cret" not in str(error.value)


def test_settings_do_not_show_secrets() -> None:
    """F16: neither the URL nor those of the targets."""
    shown = repr(DiscordSettings(url="https://x.example/s3cret", targets={"a": "https://y/s3cret"}))
    assert "s3cret" not in shown

"""`apprise` against a real server on this machine, through Apprise's own JSON service."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from receiver.errors import Retry, SettingsError
from receiver.handlers.chat.apprise import Apprise, AppriseSettings, create, room, text
from tests.support import chat_limits as limits
from tests.support.chat_events import HOSTILE, NOW, SAMPLES, event, kept, lost, run
from tests.support.chat_service import Answer, Service, serving
from tests.support.clocks import Clock


@asynccontextmanager
async def apprise(*names: str, **settings: Any) -> AsyncIterator[tuple[Service, Apprise]]:
    """The handler, with a service at each name."""
    async with serving(lambda _: Answer(200)) as service:
        urls = [f"json://user:s3cret@{service.host}/{name}" for name in names]
        made = create("team", {"url": urls, **settings})
        yield service, made


async def test_a_message_arrives_as_text_with_its_link() -> None:
    """What stands above it, and below."""
    async with apprise("a") as (service, handler):
        result = await handler(event(), run(earlier=kept()))
    assert result == {"sent": True, "told": 1, "not_told": 0}
    [post] = service.requests
    assert post.json["title"] == "Video ready"
    lines = post.json["message"].splitlines()
    assert lines[0] == "A lighthouse at dusk"
    assert lines[-1] == "Video: https://keep.example.com/7f3c1d0e/0.mp4 (kept)"


async def test_each_service_is_told_by_itself() -> None:
    """One that fails is said in the result; a new attempt would tell the others again."""
    async with apprise("a", "b", "c") as (service, handler):
        service.told["b"] = [Answer(500)]
        result = await handler(event(), run())
    assert result == {"sent": True, "told": 2, "not_told": 1}
    assert service.names == ["a", "b", "c"]


async def test_none_told_is_tried_again() -> None:
    """F23, F16: Apprise says no reason, and its log, which holds URLs, is not taken over."""
    heard: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage())

    ear = Ear()
    root = logging.getLogger()
    root.addHandler(ear)
    level = root.level
    root.setLevel(logging.DEBUG)
    try:
        async with apprise("a") as (service, handler):
            service.told["a"] = [Answer(500, b"s3cret")]
            with pytest.raises(Retry, match=r"^no service accepted the message"):
                await handler(event(input={"prompt": "pr0mpt"}), run())
    finally:
        root.removeHandler(ear)
        root.setLevel(level)
    assert not [line for line in heard if "s3cret" in line or "pr0mpt" in line]


async def test_hostile_text_has_no_marks() -> None:
    """F17: for services that are not known to escape, and a mention of theirs is none."""
    async with apprise("a") as (service, handler):
        await handler(event(input={"prompt": HOSTILE}), run())
    message = service.requests[0].json["message"]
    assert not any(mark in message.splitlines()[0] for mark in "@<>[]*_`#|~&\\{}")
    assert "\N{FULLWIDTH COMMERCIAL AT}everyone" in message


async def test_the_context_chooses_among_services() -> None:
    """By the name of a target."""
    async with serving(lambda _: Answer(200)) as service:
        targets = {"bob": f"json://{service.host}/bob"}
        usual = f"json://{service.host}/all"
        handler = create("team", {"url": usual, "targets": targets, "target_from": "who"})
        for name in ("bob", "eve"):
            await handler(event(context={"who": name}), run())
    assert service.names == ["bob", "all"]


async def test_check_names_the_services() -> None:
    """And sends nothing."""
    async with apprise("a", "b") as (service, handler):
        found = await handler.check()
    assert found.startswith("Apprise knows JSON; a service itself")
    assert service.requests == []


def test_a_service_of_few_characters_gets_what_fits() -> None:
    """The links go first, then what failed, then facts; the prompt last."""
    short = text(SAMPLES["many-pictures"], None, 300)
    assert limits.utf16(short) <= 300
    assert short.count("https://") == 3
    assert short.endswith("and 9 more")
    assert "A lighthouse" in text(SAMPLES["video"], None, 300)


def test_a_headline_that_is_no_title_takes_room_from_the_text() -> None:
    """As Apprise puts it above the text, for a service of short messages."""
    assert room(SAMPLES["video"], 32_768, 250) == 4000
    assert room(SAMPLES["video"], 160, 0) == 160 - len("Video ready") - 2


async def test_notes_stand_below_a_template() -> None:
    """Also here."""
    async with apprise("a", template="{{ prompt }}!") as (service, handler):
        await handler(event(input={"prompt": "@a"}), run(earlier=lost()))
    first, second = service.requests[0].json["message"].splitlines()
    assert first == "\N{FULLWIDTH COMMERCIAL AT}a!"
    assert second.startswith("keep failed")


async def test_a_service_that_raises_is_one_that_did_not_take_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """F16: its words may hold its URL."""
    import apprise as library

    def fail(*_: Any, **__: Any) -> bool:
        raise TypeError("json://user:s3cret@host")

    monkeypatch.setattr(library.Apprise, "notify", fail)
    settings = AppriseSettings.model_validate({"url": "json://user:s3cret@localhost"})
    with pytest.raises(
        Retry, match=r"^no service accepted the message; Apprise does not report the reason$"
    ):
        await Apprise(settings, clock=Clock(NOW))(event(), run())


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({}, "url: missing, expected a URL of Apprise, or a list of them"),
        ({"url": "nosuch://s3cret"}, "url: '…', expected a URL of Apprise, such as mailtos://"),
        ({"url": ["json://a", "s3cret"]}, "url: '…', expected a URL of Apprise"),
        ({"url": []}, "url: '…', expected"),
        (
            {"url": "json://a", "targets": {"a": "s3cret"}, "target_from": "a"},
            "targets: '…', each expected to be a URL of Apprise",
        ),
    ],
)
def test_faults_show_at_start_without_secrets(settings: dict[str, Any], fault: str) -> None:
    """F16: each names its key and what was expected."""
    with pytest.raises(SettingsError) as error:
        create("team", settings)
    assert f"handlers.team.{fault}" in str(error.value)
    assert "s3cret" not in str(error.value)


def test_without_apprise_it_says_so_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loader names the extra."""
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(ImportError):
        create("team", {"url": "json://a"})

"""What each service is sent, word for word, and within the limits that it names."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from receiver.event import Dispatch, DispatchState
from receiver.handlers.chat import apprise, blocks, discord, teams
from receiver.handlers.chat import telegram as telegram_module
from receiver.handlers.chat.message import Message
from receiver.handlers.chat.template import Template
from receiver.handlers.chat.text import Span
from tests.support import chat_limits as limits
from tests.support.chat_events import HOSTILE, SAMPLES, event, message, run

SNAPSHOTS = Path(__file__).with_name("snapshots")
UPDATE = os.environ.get("UPDATE_SNAPSHOTS") == "1"


def slack(message: Message, words: list[Span] | None = None) -> Any:
    return blocks.payload(message, words, images=True)


def telegram(message: Message, words: list[Span] | None = None) -> Any:
    text, marks = telegram_module.render(message, words, telegram_module.MAX_TEXT_UNITS)
    return {"text": text.split("\n"), "entities": marks}


def mail(message: Message, words: list[Span] | None = None) -> Any:
    return apprise.text(message, words, 2000).split("\n")


CHANNELS: dict[str, Callable[..., Any]] = {
    "slack": slack,
    "discord": discord.payload,
    "teams": teams.payload,
    "telegram": telegram,
    "apprise": mail,
}


def made(channel: str, message: Message, words: list[Span] | None = None) -> Any:
    return CHANNELS[channel](message, words)


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("channel", CHANNELS)
def test_payload_is_the_one_that_was_looked_at(channel: str, name: str) -> None:
    """UPDATE_SNAPSHOTS=1 writes them anew, for a person to look at."""
    path = SNAPSHOTS / f"{channel}-{name}.json"
    text = json.dumps(made(channel, SAMPLES[name]), indent=1, ensure_ascii=False) + "\n"
    if UPDATE:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
    assert text == path.read_text("utf-8")


def test_no_snapshot_is_left_of_what_is_no_more() -> None:
    """Each file belongs to a channel and a sample."""
    there = {path.stem for path in SNAPSHOTS.glob("*.json")}
    assert there == {f"{channel}-{name}" for channel in CHANNELS for name in SAMPLES}


def valid(channel: str, message: Message, words: list[Span] | None) -> None:
    """By the limits of its channel."""
    match channel:
        case "slack":
            for images in (True, False):
                limits.slack(blocks.payload(message, words, images=images))
        case "discord":
            limits.discord(discord.payload(message, words))
        case "teams":
            limits.teams(teams.payload(message, words))
        case "telegram":
            for limit in (telegram_module.MAX_TEXT_UNITS, telegram_module.MAX_CAPTION_UNITS):
                limits.telegram(*telegram_module.render(message, words, limit), limit)
        case _:
            for limit in (140, 2000):
                assert limits.utf16(apprise.text(message, words, limit)) <= limit


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("channel", CHANNELS)
def test_payload_is_within_the_limits(channel: str, name: str) -> None:
    """As the services document them."""
    valid(channel, SAMPLES[name], None)


TEMPLATE = Template(
    "{{ headline }} of {{ model }}: {{ prompt }} {{ user }} {{ failure.said }}\n"
    "{% for output in outputs %}{{ output.label }} {{ output.url }}\n{% endfor %}"
)


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("channel", CHANNELS)
def test_template_is_within_the_limits(channel: str, name: str) -> None:
    """Also where it holds all that is somebody else's."""
    words = TEMPLATE.render(SAMPLES[name], event())
    assert words is not None
    valid(channel, SAMPLES[name], words)


@pytest.mark.parametrize("words", [None, TEMPLATE.render(SAMPLES["hostile"], event())])
@pytest.mark.parametrize("channel", ["discord", "apprise"])
def test_nothing_of_others_acts_where_markup_is_read(
    channel: str, words: list[Span] | None
) -> None:
    """F17: no mention, link, heading, code or tag of a prompt, model, id or error is left whole."""
    payload = made(channel, SAMPLES["hostile"], words)
    if channel == "discord":
        # A footer is plain text.
        del payload["embeds"][0]["footer"]
    text = json.dumps(payload, ensure_ascii=False)
    assert "everyone" in text
    bare = re.sub(r"\\\\[^0-9A-Za-z\s]", "", text)
    for bad in ("@everyone", "<!channel>", "<@U", "**bold", "](https://evil", "<script"):
        assert bad not in bare, bad


def test_nothing_of_others_acts_in_slacks_own_marks() -> None:
    """F17: in a notification and in a template's text, which are the two places with markup."""
    made = blocks.payload(
        SAMPLES["hostile"], TEMPLATE.render(SAMPLES["hostile"], event()), images=True
    )
    section = next(each for each in made["blocks"] if each["type"] == "section")
    for text in (made["text"], section["text"]["text"]):
        assert "&lt;!channel&gt;" in text
        assert not any(bad in text for bad in ("<!", "<@", "*bold", "_it_", "`code"))
    assert "<https" not in made["text"]


@pytest.mark.parametrize("words", [None, TEMPLATE.render(SAMPLES["hostile"], event())])
def test_telegram_looks_for_nothing_in_what_is_of_others(words: list[Span] | None) -> None:
    """F17: it stands in code, where mentions, commands, links and tags are plain text."""
    text, marks = telegram_module.render(SAMPLES["hostile"], words, telegram_module.MAX_TEXT_UNITS)
    assert "@everyone" in text
    bare = limits.outside(text, marks)
    for bad in ("@", "evil", "script", "/", "#"):
        assert bad not in bare.replace("https://cdn.example.com/out/video.mp4?sig=a%2Fb&x=1", "")


def test_nothing_of_others_is_markdown_in_a_card() -> None:
    """F17: text runs only; a template's own block has the wide letters that look alike."""
    made = teams.payload(SAMPLES["hostile"], None)
    kinds = {each["type"] for each in made["attachments"][0]["content"]["body"]}
    assert kinds == {"RichTextBlock"}
    words = TEMPLATE.render(SAMPLES["hostile"], event())
    body = teams.payload(SAMPLES["hostile"], words)["attachments"][0]["content"]["body"]
    [block] = [each for each in body if each["type"] == "TextBlock"]
    assert "**bold" not in block["text"]
    assert "](https" not in block["text"]


def test_the_operators_own_markup_stays() -> None:
    """What stands in the template itself is the operator's, links among it."""
    words = Template("<{{ outputs[0].url }}|*{{ prompt }}*> for <@U1>").render(
        SAMPLES["video"], event()
    )
    section = blocks.payload(SAMPLES["video"], words, images=True)["blocks"][1]
    url = SAMPLES["video"].outputs[0].url
    assert section["text"]["text"] == f"<{url}|*A lighthouse at dusk*> for <@U1>"


def test_a_card_that_is_too_large_counts_what_it_leaves_out() -> None:
    """Pictures with long URLs: as many as fit into 28 KB."""
    long = [f"https://cdn.example.com/{n}.png?{'s' * 1900}" for n in range(10)]
    payload = teams.payload(SAMPLES["many-pictures"], None)
    assert "and 6 more" in json.dumps(payload)
    error = "\u6f22" * 300
    dead = {
        name: Dispatch("id", name, DispatchState.DEAD, error=error)
        for name in ("a", "b", "c", "d", "e")
    }
    huge = event(outputs=long, input={"prompt": "\U0001f980" * 500}, model=error)
    payload = teams.payload(message(huge, run(earlier=dead), prompt=1000), None)
    limits.teams(payload)
    assert len(payload["attachments"][0]["content"]["actions"]) == 5
    assert "and 5 more" in json.dumps(payload)


def test_hostile_text_is_what_the_name_says() -> None:
    """So that the tests above test something."""
    assert not HOSTILE.isprintable()

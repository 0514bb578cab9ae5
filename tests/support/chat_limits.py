"""What each service takes, as far as it says so: a validator each, with its source."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from receiver.handlers.chat.teams import MAX_CARD_BYTES

_OUR_LINK = r"^\[(?:Video|Image|Audio|File)(?: \d+)?\]\(https?://\S+\)"


def utf16(text: str) -> int:
    """Code units, counted by the encoder itself."""
    return len(text.encode("utf-16-le")) // 2


def printable(text: str) -> None:
    """F17: no control, bidirectional or zero-width character, but the line breaks we set."""
    assert all(c.isprintable() or c == "\n" for c in text), text


def slack(payload: dict[str, Any]) -> None:
    """As by https://docs.slack.dev/reference/block-kit/blocks and the pages of its elements."""
    json.dumps(payload).encode("ascii")
    assert 0 < utf16(payload["text"]) <= 4000
    printable(payload["text"])
    assert not re.search(r"<|>|&(?!amp;|lt;|gt;)", payload["text"])
    assert payload["mrkdwn"] is payload["unfurl_links"] is payload["unfurl_media"] is False
    assert 0 < len(payload["blocks"]) <= 50
    for block in payload["blocks"]:
        match block:
            case {"type": "header", "text": {"type": "plain_text", "text": text, "emoji": False}}:
                assert 0 < utf16(text) <= 150
                printable(text)
            case {"type": "section", "text": {"type": "mrkdwn", "text": text, "verbatim": True}}:
                assert 0 < utf16(text) <= 3000
                printable(text)
            case {"type": "image", "image_url": url, "alt_text": alt}:
                assert 0 < utf16(alt) <= 2000
                printable(alt)
                web(url, 3000)
            case {"type": "rich_text", "elements": elements}:
                assert elements
                for element in elements:
                    _rich(element)
            case _:
                raise AssertionError(f"a block that we do not send: {block}")


def _rich(element: dict[str, Any]) -> None:
    """Only text and our links: no `user`, `usergroup`, `broadcast`, `channel` or `emoji`."""
    assert element["type"] in ("rich_text_section", "rich_text_quote")
    assert element["elements"]
    for each in element["elements"]:
        assert each["type"] in ("text", "link")
        assert 0 < utf16(each["text"]) <= 3000
        printable(each["text"])
        if each["type"] == "link":
            web(each["url"], 3000)


def discord(payload: dict[str, Any]) -> None:
    """As by https://discord.com/developers/docs/resources/message, "Embed Limits"."""
    json.dumps(payload).encode("ascii")
    assert payload["allowed_mentions"] == {"parse": []}
    assert utf16(payload.get("content", "")) <= 2000
    assert 0 < len(payload["embeds"]) <= 10
    total = 0
    for embed in payload["embeds"]:
        fields = embed.get("fields", [])
        assert len(fields) <= 25
        for text, least, most in (
            (embed.get("title", "-"), 1, 256),
            (embed.get("description", "-"), 1, 4096),
            (embed.get("footer", {}).get("text", "-"), 1, 2048),
            *((each["name"], 1, 256) for each in fields),
            *((each["value"], 1, 1024) for each in fields),
        ):
            assert least <= utf16(text) <= most
            printable(text)
            total += utf16(text)
        if "image" in embed:
            web(embed["image"]["url"], 2048)
    assert total <= 6000
    first = payload["embeds"][0]
    for text in (first.get("description", ""), *(e["value"] for e in first.get("fields", []))):
        # What is left once escapes, our quote and our links are gone.
        bare = re.sub(r"\\[^0-9A-Za-z\s]", "", text)
        bare = re.sub(r"^> ", "", bare)
        bare = re.sub(_OUR_LINK, "", bare, flags=re.MULTILINE)
        assert not re.search(r"[\\*_~`|<>#\[\]@]", bare), bare


def teams(payload: dict[str, Any]) -> None:
    """As by https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors.

    The elements are those of https://adaptivecards.io/explorer.
    """
    assert len(json.dumps(payload, ensure_ascii=False).encode()) <= MAX_CARD_BYTES < 28 * 1024
    [attachment] = payload["attachments"]
    assert payload["type"] == "message"
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    card = attachment["content"]
    assert (card["type"], card["version"]) == ("AdaptiveCard", "1.4")
    assert len(card["actions"]) <= 6
    for action in card["actions"]:
        assert action["type"] == "Action.OpenUrl"
        assert 0 < len(action["title"]) < 100
        web(action["url"], 2048)
    for element in card["body"]:
        match element:
            case {"type": "RichTextBlock", "inlines": inlines}:
                for run in inlines:
                    assert run["type"] == "TextRun"
                    assert run["text"]
                    printable(run["text"])
                    assert not re.search(r"[{$]\{", run["text"])
            case {"type": "TextBlock", "text": text, "wrap": True}:
                printable(text)
            case {"type": "Image", "url": url, "altText": alt}:
                assert alt
                web(url, 2048)
            case _:
                raise AssertionError(f"an element that we do not send: {element}")


def telegram(text: str, entities: Sequence[dict[str, Any]], limit: int) -> None:
    """As by https://core.telegram.org/bots/api, "MessageEntity" and "sendMessage"."""
    assert 0 < utf16(text) <= limit
    assert text == text.strip()
    printable(text)
    assert len(entities) <= 100
    data = text.encode("utf-16-le")
    end = 0
    for entity in entities:
        assert entity["type"] in ("bold", "code", "text_link")
        assert entity["offset"] >= end, "entities overlap"
        assert entity["length"] > 0
        end = entity["offset"] + entity["length"]
        # A surrogate pair that is cut in two does not decode.
        assert data[entity["offset"] * 2 : end * 2].decode("utf-16-le").strip()
        if entity["type"] == "text_link":
            web(entity["url"], 2048)
    assert end * 2 <= len(data)


def outside(text: str, entities: Sequence[dict[str, Any]]) -> str:
    """What Telegram looks through for mentions, commands and links: all but the code."""
    data = text.encode("utf-16-le")
    for entity in entities:
        if entity["type"] == "code":
            start, end = entity["offset"] * 2, (entity["offset"] + entity["length"]) * 2
            data = data[:start] + "·".encode("utf-16-le") * entity["length"] + data[end:]
    return data.decode("utf-16-le")


def web(url: str, most: int) -> None:
    """A URL that no markup is broken out of."""
    assert len(url) <= most
    assert re.fullmatch(r"https?://[A-Za-z0-9._~:\[\]-]+(/[A-Za-z0-9._~:/?#@!$&+,;=%-]*)?", url), (
        url
    )

"""Verified events with unexpected content; each of them can occur."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import count
from typing import Any

from receiver.event import Event, Origin
from receiver.testing.events import event
from submitter.prediction import JSON

UNREACHABLE_URL = "https://127.0.0.1:9/video.mp4"
"""URL of an output that does not exist; connections to it are refused at once."""

_TEXTS = {
    "scripts": "\u202eright to left, e\u0301, \U0001f469\u200d\U0001f680, \ufeff, \uffff",
    "control characters": "a\0b\r\nX-Evil: 1\x1b[2J\x7f\u2028",
    "markup": "<script>alert(1)</script> **a** [b](javascript:c) `d` ||e|| &amp; ]]>",
    "mentions": "@everyone <!channel> <@U123> @here <at>all</at>",
    "templates": "{{ 7 * 7 }} {% raw %} ${jndi:x} %(name)s %s {0} {x!r}",
    "spaces": " \t\n ",
    "100,000 characters": "long " * 20_000,
}
_NAMES = ("..", "../../etc/passwd", "/etc/passwd", "a/b\\c", "CON", "C:\\x", ".hidden", "x" * 256)
_CONTEXTS: tuple[JSON, ...] = (7, "x", [], True)
_NO_URLS = (
    "not a URL",
    "https://",
    "https://[::1",
    "https://host:99999/",
    "ftp://127.0.0.1:9/a",
    "file:///etc/passwd",
    "javascript:alert(1)",
    "data:text/html,<script>",
    "https://user:pass@127.0.0.1:9/",
    "http://169.254.169.254/latest/meta-data/",
    "https://127.0.0.1:9/" + "a" * 20_000,
    "https://127.0.0.1:9/a b\r\nc?d=\u202e#\0",
)


def hostile_events() -> dict[str, Event]:
    """Make verified events with unexpected content, by a description of it.

    Their outputs do not exist, so that a handler that fetches them fails at once.
    """
    numbers = count(1)

    def plain(status: str = "completed", **fields: Any) -> Event:
        return event(
            status, **{"id": f"task-{next(numbers)}", "outputs": [UNREACHABLE_URL]} | fields
        )

    deep: JSON = "bottom"
    for _ in range(100):
        deep = [deep]
    texts = {
        f"{place}: {kind}": plain("failed" if place == "error" else "completed", **fields)
        for kind, text in _TEXTS.items()
        for place, fields in (
            ("prompt", {"input": {"prompt": text}}),
            ("error", {"error": text, "outputs": []}),
            ("context", {"context": {"channel": text, text: text}}),
        )
    }
    return {
        "parked: no UTF-8": event(body=b"\xff\xfe"),
        "parked: no object": event(body=b"[]"),
        "parked: not strict JSON": event(body=b'{"id": "a", "status": "completed", "x": NaN}'),
        "a body that was purged": replace(plain(), body=b""),
        "no prediction": event(body=b'{"type": "push", "ref": null}', source="github"),
        "a number for a body": event(body=b"5", source="github"),
        "nothing but an id and a status": event(body=b'{"id": "a", "status": "completed"}'),
        "no outputs": plain(outputs=[]),
        "a thousand outputs": plain(
            outputs=[f"{UNREACHABLE_URL}?{number}" for number in range(1000)]
        ),
        "an output twice": plain(outputs=[UNREACHABLE_URL, UNREACHABLE_URL]),
        "outputs as objects": _with("outputs", [{"url": UNREACHABLE_URL}, {"text": "x"}, 5, None]),
        "flagged": plain(has_nsfw_contents=[True]),
        "failed without a reason": plain("failed", outputs=[], error="", code=None),
        "cancelled": plain("cancelled", outputs=[]),
        "a status that nobody knows": plain("warming_up", outputs=[]),
        "fetched": replace(plain(), origin=Origin.RECONCILE, webhook_id=None),
        "a moment beyond all calendars": replace(plain(), occurred_at=999_999_999_999.0),
        "no moment": replace(plain(), occurred_at=0.0, received_at=0.0),
        "numbers beyond every column": plain(code=10**30, timings={"inference": 1e308}),
        "a deep context": plain(context=deep),
        "a wide context": plain(context={str(number): number for number in range(5000)}),
        **{f"context: {value!r}": plain(context=value) for value in _CONTEXTS},
        **{f"no such type: {name}": _with(name, value) for name, value in _MISTYPED.items()},
        **{f"id: {name[:20]}": plain(id=name, model=name) for name in _NAMES},
        **{f"output: {url[:40]!r}": plain(outputs=[url]) for url in _NO_URLS},
        **texts,
    }


_MISTYPED: dict[str, JSON] = {
    "model": 5,
    "outputs": {"url": "x"},
    "error": {"message": "x"},
    "code": "1200",
    "input": ["prompt"],
    "timings": [1],
    "urls": "x",
    "has_nsfw_contents": "yes",
    "created_at": 5,
}


def _with(name: str, value: JSON) -> Event:
    """A prediction with one field of another type."""
    fields: dict[str, JSON] = {"id": "a", "status": "completed", "outputs": [UNREACHABLE_URL]}
    return event(body=json.dumps(fields | {name: value}).encode())

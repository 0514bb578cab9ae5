"""Chat handlers as users run them: by a section of the settings, under the real dispatcher."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from receiver.dispatch.dispatcher import Dispatcher
from receiver.event import DispatchState
from receiver.handlers.archive.result import ArchivedFile, result_of
from receiver.handlers.base import Installed
from receiver.handlers.chat.base import Channel
from receiver.handlers.chat.discord import Discord, DiscordSettings
from receiver.handlers.loading import install, load_section
from receiver.handlers.routing import Route
from receiver.stores.memory import MemoryStore
from receiver.testing import Run, event, run_handler
from tests.support.chat_events import NOW
from tests.support.chat_events import event as sample
from tests.support.chat_service import Answer, Request, Service, serving
from tests.support.clocks import Clock

SECTIONS: Mapping[str, Mapping[str, Any]] = {
    "slack": {"token": "xoxb-s3cret-s3cret", "channel": "C0123", "api": "{url}/api"},
    "discord": {"url": "{url}/api/webhooks/1/s3cret"},
    "teams": {"url": "{url}/workflows/s3cret"},
    "telegram": {"token": "1:s3cret-s3cret", "chat": "-100", "api": "{url}"},
    "apprise": {"url": "json://user:s3cret@{host}/s3cret"},
}


def says(request: Request) -> Answer:
    """What each of the services takes for a success."""
    body = {"ok": True, "ts": "1.5", "id": "9", "result": {"message_id": 9}}
    return Answer(200, body)


def section(use: str, service: Service, **more: Any) -> dict[str, Any]:
    """As it would stand in the file."""
    told = {
        key: value.format(url=service.url, host=service.host)
        for key, value in SECTIONS[use].items()
    }
    allow = {} if use == "apprise" else {"allow": ["127.0.0.1"]}
    return {"use": use, **allow, **told, **more}


async def sent(use: str, run: Any, **more: Any) -> tuple[Run, list[Request]]:
    """One event through the dispatcher; what the service was sent."""
    async with serving(says) as service:
        installed = load_section("team", section(use, service, **more))
        made = await run_handler(installed, **run)
    return made, [each for each in service.requests if each.method == "POST"]


@pytest.mark.parametrize("use", SECTIONS)
async def test_a_dead_archive_is_said_and_the_message_goes_out(use: str) -> None:
    """`after` and results, end to end: what failed, and until when the link holds."""
    gone = PermissionError("storage.example.com: HTTP 403")
    made, posts = await sent(use, {"event": event(), "earlier": {"keep": gone}})
    assert made.state == "done"
    assert [each.outcome for each in made.attempts] == ["done"]
    text = posts[0].body.decode().replace("\\\\", "")
    assert "keep failed" in text
    assert "HTTP 403; the links here expire on 20" in text
    assert isinstance(made.result, dict)
    assert made.result["sent"] is True
    assert "s3cret" not in json.dumps(made.result)


@pytest.mark.parametrize("use", SECTIONS)
async def test_an_archive_that_has_it_gives_the_lasting_link(use: str) -> None:
    """By the URL that the API gave."""
    task = event()
    url = task.prediction.outputs[0] if task.prediction else ""
    lasting = "https://keep.example.com/task-1/0.mp4"
    files = [ArchivedFile(url, "task-1/0.mp4", lasting, 9, "ab", "video/mp4")]
    made, posts = await sent(use, {"event": task, "earlier": {"keep": result_of(files)}})
    assert made.state == "done"
    text = posts[0].body.decode()
    assert lasting in text
    assert "link expires on" not in text


@pytest.mark.parametrize("use", SECTIONS)
async def test_a_service_that_is_away_is_told_later(use: str) -> None:
    """F23: the retry policy brings it again, with the same message."""
    async with serving(says) as service:
        installed = load_section("team", section(use, service))
        name = {"slack": "chat.postMessage", "telegram": "sendMessage"}.get(use, "s3cret")
        service.told[name] = [Answer(503), None]
        made = await run_handler(installed, event())
    assert [each.outcome for each in made.attempts] == ["retry", "retry", "done"]
    assert not any("s3cret" in (each.error or "") for each in made.attempts)
    first, *_, last = service.named(name)
    assert first.body == last.body


@asynccontextmanager
async def dispatching(
    service: Service, time: Clock, tasks: int
) -> AsyncIterator[tuple[Dispatcher, MemoryStore]]:
    """`discord` under the real dispatcher on a clock of ours, with so many events due."""
    url = f"{service.url}/api/webhooks/1/s3cret"
    settings = DiscordSettings(url=url, upload=0, allow=("127.0.0.1",))
    handler = Discord(settings, clock=time, sleep=time.sleep)
    installed = Installed(Route("team"), handler, timeout=600.0, close=handler.close)
    store = MemoryStore()
    await store.open()
    for number in range(tasks):
        await store.add(sample(id=f"task-{number}"), {"team": ()})
    dispatcher = Dispatcher(store, [installed], owner="o", clock=time, random=lambda: 1.0)
    try:
        yield dispatcher, store
    finally:
        await dispatcher.stop(1.0)


async def dispatches(store: MemoryStore, tasks: int) -> list[tuple[DispatchState, int]]:
    """The state and the number of attempts of each."""
    found = [await store.dispatches(f"wavespeed:task-{n}:completed") for n in range(tasks)]
    return [(each.state, each.attempt) for [each] in found]


async def test_a_long_wait_pauses_all_events_of_the_handler() -> None:
    """F27: nothing is sent before the time that the service named."""
    time = Clock(NOW)
    async with serving(says) as service, dispatching(service, time, 3) as (dispatcher, store):
        service.told["s3cret"] = [Answer(429, {"retry_after": 900.0})]
        await dispatcher.drain()
        assert len(service.requests) == 1
        time.now += 899.0
        await dispatcher.drain()
        assert len(service.requests) == 1
        time.now += 30.0
        await dispatcher.drain()
        assert await dispatches(store, 3) == [(DispatchState.DONE, 2)] * 3
    assert len(service.requests) == 4
    assert time.slept == []


def test_uploads_have_time() -> None:
    """Two minutes, unless the section says otherwise."""
    url = "https://discord.com/api/webhooks/1/x"
    usual, own = install(
        {
            "a": {"use": "discord", "url": url},
            "b": {"use": "discord", "url": url, "timeout": "5s"},
        }
    )
    assert (usual.timeout, own.timeout) == (120.0, 5.0)
    assert isinstance(usual.handle, Channel)


class Allowance:
    """Discord as it counts: five requests in two seconds to one webhook."""

    def __init__(self, time: Clock) -> None:
        self.time = time
        self.until = 0.0
        self.left = 0
        self.refused = 0

    def __call__(self, request: Request) -> Answer:
        if self.time.now >= self.until:
            self.until, self.left = self.time.now + 2.0, 5
        wait = self.until - self.time.now
        headers = {"x-ratelimit-reset-after": f"{wait:.3f}"}
        if self.left == 0:
            self.refused += 1
            return Answer(429, {"retry_after": wait}, headers | {"x-ratelimit-remaining": "0"})
        self.left -= 1
        return Answer(200, {"id": "1"}, headers | {"x-ratelimit-remaining": str(self.left)})


async def test_a_burst_goes_out_at_the_services_pace() -> None:
    """F26: an outage is over, and all are due at once: one attempt each, and none is refused."""
    time = Clock(NOW)
    allowance = Allowance(time)
    async with (
        serving(allowance) as service,
        dispatching(service, time, 100) as (dispatcher, store),
    ):
        await dispatcher.drain()
        assert await dispatches(store, 100) == [(DispatchState.DONE, 1)] * 100
    assert len(service.requests) == 100
    assert allowance.refused == 0
    assert sum(time.slept) == pytest.approx(38.0, abs=0.5)

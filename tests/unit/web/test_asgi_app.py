"""`receiver.web.asgi:app`: built at the first scope."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import structlog
from starlette.applications import Starlette
from starlette.types import ASGIApp

import receiver
from receiver.errors import SchemaMismatch, SettingsError
from receiver.telemetry import TelemetryEvent
from receiver.web.asgi import START_FAILED, LazyApp
from tests.support.asgi import SECRET, Connection, Inbox, Log, post, request, running, scope

Install = Callable[[Callable[[], ASGIApp]], None]
FAULTS = ("WAVEHOOK_PORT is 'eighty'; expected a number", "WAVEHOOK_DATABASE is ''; expected a URL")


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a composition root in the place of the real one, which reads the environment."""

    def put(build: Callable[[], ASGIApp]) -> None:
        module = ModuleType("receiver.build")
        module.app = build  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "receiver.build", module)
        monkeypatch.setattr(receiver, "build", module, raising=False)

    return put


def _refused() -> ASGIApp:
    raise SettingsError(FAULTS)


async def test_the_app_is_built_once_at_the_first_scope(
    build: Callable[..., Starlette], install: Install
) -> None:
    """F41: whether lifespan or a request comes first, there is one app."""
    built: list[Starlette] = []

    def make() -> ASGIApp:
        built.append(build())
        return built[-1]

    install(make)
    app = LazyApp()
    async with running(app):
        answers = [await post(app), await post(app)]

    assert [answer.status for answer in answers] == [202, 200]
    assert len(built) == 1


async def test_bad_settings_fail_the_start(log: Log, install: Install) -> None:
    """F15: a server that runs lifespan ends, and its log names every fault; no traceback."""
    install(_refused)

    async with running(LazyApp()) as sent:
        pass

    assert sent == [{"type": "lifespan.startup.failed", "message": START_FAILED}]
    assert log.line("settings.refused")["faults"] == list(FAULTS)
    assert "Traceback" not in log.text


async def test_a_store_that_does_not_open_is_told_once(
    build: Callable[..., Starlette], install: Install, inbox: Inbox, told: list[TelemetryEvent]
) -> None:
    """F43: the reason stands in our own line; the server's log gets no traceback with it."""
    install(build)
    inbox.failure = SchemaMismatch("made by version 9", 9, 1)

    lifespan = running(LazyApp())
    sent = await lifespan.__aenter__()
    with pytest.raises(SchemaMismatch):
        await lifespan.__aexit__(None, None, None)

    assert sent == [{"type": "lifespan.startup.failed", "message": START_FAILED}]
    assert [each.name for each in told] == ["store.failed"]


async def test_bad_settings_answer_503_without_lifespan(log: Log, install: Install) -> None:
    """F15, F41: where lifespan never runs, senders keep their events, and the log says why once."""
    install(_refused)
    app = LazyApp()

    answers = [await post(app), await request(app, "/livez", method="GET")]

    for answer in answers:
        assert answer.status == 503
        assert answer.header(b"content-type") == b"application/problem+json"
        assert answer.header(b"retry-after") == b"60"
        assert b"WAVEHOOK" not in answer.body
    assert len(log.lines("settings.refused")) == 1
    await app.stop()


async def test_another_try_is_made_after_a_while(
    build: Callable[..., Starlette], install: Install, log: Log
) -> None:
    """F20, F41: a webhook secret that could not be fetched may be there a minute later."""
    now = 0.0
    app = LazyApp(clock=lambda: now)
    install(_refused)
    statuses = [(await post(app)).status]
    install(build)
    now = 59.0
    statuses.append((await post(app)).status)
    now = 60.0
    statuses.append((await post(app)).status)

    assert statuses == [503, 503, 202]
    assert len(log.lines("settings.refused")) == 1


async def test_a_fault_of_ours_in_the_building_is_503(log: Log, install: Install) -> None:
    """F16: whatever goes wrong, senders keep their events, and the log shows no data."""

    def broken() -> ASGIApp:
        raise ValueError("a secret")

    install(broken)

    assert (await post(LazyApp())).status == 503
    assert log.line("build.failed")["error"] == "ValueError"


async def test_bad_settings_refuse_websockets(log: Log, install: Install) -> None:
    """A scope of another kind is closed."""
    install(_refused)
    connection = Connection([])

    await LazyApp()(scope(type="websocket"), connection.receive, connection.send)

    assert connection.sent == [{"type": "websocket.close", "code": 1013}]


async def test_the_log_is_set_up_where_nobody_did(
    install: Install, capsys: pytest.CaptureFixture[str], log: Log
) -> None:
    """Faults that are found before the settings could set up the log still come out as lines."""
    install(_refused)
    structlog.reset_defaults()

    async with running(LazyApp()) as sent:
        pass

    assert sent[0]["type"] == "lifespan.startup.failed"
    assert '"event":"settings.refused"' in capsys.readouterr().err


async def test_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `uvicorn receiver.web.asgi:app` does: a genuine webhook ends on disk."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WAVEHOOK_DATABASE", f"sqlite:///{tmp_path}/inbox.db")
    monkeypatch.setenv("WAVEHOOK_WAVESPEED_SECRETS", f"whsec_new,{SECRET}")
    app = LazyApp()

    async with running(app):
        answers = [await post(app, at=time.time()) for _ in range(2)]
        page = await request(app, "/metrics", method="GET")

    assert [answer.status for answer in answers] == [202, 200]
    assert b'wavehook_events_total{source="wavespeed"' in page.body
    assert (tmp_path / "inbox.db").exists()


async def test_from_an_environment_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    """F15: with nothing to verify with, the start fails and names the setting."""
    monkeypatch.chdir(tmp_path)
    for name in ("WAVEHOOK_WAVESPEED_SECRETS", "WAVESPEED_API_KEY"):
        monkeypatch.delenv(name, raising=False)

    async with running(LazyApp()) as sent:
        pass

    assert sent[0]["type"] == "lifespan.startup.failed"
    line = log.line("settings.refused")
    assert line["level"] == "error"
    assert "WAVEHOOK_WAVESPEED_SECRETS" in line["faults"][0]


async def test_the_log_level_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: Log, capsys: pytest.CaptureFixture[str]
) -> None:
    """`uvicorn receiver.web.asgi:app` heeds WAVEHOOK_LOG_LEVEL as `serve` does."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WAVEHOOK_WAVESPEED_SECRETS", SECRET)
    monkeypatch.setenv("WAVEHOOK_LOG_LEVEL", "warning")
    structlog.reset_defaults()
    app = LazyApp()

    async with running(app):
        await post(app, at=time.time())
        await post(app, at=0.0)

    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["level"], line["event"]) for line in lines] == [("warning", "delivery.rejected")]


async def test_a_log_of_ones_own_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: Log, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who has set structlog up before keeps what was chosen."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WAVEHOOK_WAVESPEED_SECRETS", SECRET)
    app = LazyApp()

    async with running(app):
        await post(app, at=time.time())

    assert log.lines("request.served")
    assert capsys.readouterr().err == ""

"""A receiver on the reference store, its log, and what its hooks were told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from cryptography.fernet import Fernet
from starlette.applications import Starlette

from receiver.handlers.routing import Route
from receiver.intake import Intake, TrustedSource
from receiver.sources.insecure import Insecure
from receiver.sources.wavespeed import WaveSpeedSource
from receiver.telemetry import TelemetryEvent
from receiver.telemetry.log import configure
from receiver.web.app import create_app
from submitter.submit.context_token import Seal
from tests.support.asgi import NOW, OLD_SECRET, OTHER_SECRET, SECRET, Inbox, Log

Build = Callable[..., Starlette]


@pytest.fixture
def log() -> Log:
    """The log of this process, in memory."""
    log = Log()
    configure(log.stream)
    return log


@pytest.fixture
def told() -> list[TelemetryEvent]:
    """What the hooks were told."""
    return []


@pytest.fixture
def seal() -> Seal:
    """Opens and makes tokens."""
    return Seal([Fernet.generate_key().decode()])


@pytest.fixture
def inbox() -> Inbox:
    """The store; not open yet."""
    return Inbox()


@pytest.fixture
def intake(inbox: Inbox, seal: Seal) -> Intake:
    """Three sources and one handler."""
    wavespeed, other, open_to_all = (
        WaveSpeedSource(),
        WaveSpeedSource("other"),
        Insecure("insecure"),
    )
    sources = {
        "wavespeed": TrustedSource(wavespeed, [wavespeed.key(SECRET), wavespeed.key(OLD_SECRET)]),
        "other": TrustedSource(other, [other.key(OTHER_SECRET)]),
        "insecure": TrustedSource(open_to_all, []),
    }
    return Intake(sources, [Route("keep")], inbox, seal)


@pytest.fixture
def build(log: Log, told: list[TelemetryEvent], inbox: Inbox, intake: Intake) -> Build:
    """Makes an app; keywords go to `create_app`."""

    def make(**changes: Any) -> Starlette:
        parts: dict[str, Any] = {
            "intake": intake,
            "store": inbox,
            "hooks": [told.append],
            "clock": lambda: NOW,
        }
        return create_app(**(parts | changes))

    return make


@pytest.fixture
async def app(build: Build, inbox: Inbox) -> Starlette:
    """An app whose store is open."""
    await inbox.open()
    inbox.calls.clear()
    return build()

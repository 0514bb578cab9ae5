"""/livez, /readyz and /metrics."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from starlette.applications import Starlette

from receiver.errors import StoreUnavailable
from receiver.telemetry import TelemetryEvent
from receiver.telemetry.metrics import Metrics
from tests.support.asgi import NOW, Answer, Inbox, post, request

Build = Callable[..., Starlette]


async def get(app: Starlette, path: str) -> Answer:
    return await request(app, path, method="GET")


async def test_livez_does_not_ask_the_store(build: Build, inbox: Inbox) -> None:
    """A store that is down is no reason to restart the receiver."""
    inbox.failure = StoreUnavailable("down")

    answer = await get(build(), "/livez")

    assert (answer.status, answer.json, inbox.calls) == (200, {"status": "alive"}, [])


async def test_readyz_opens_and_asks_the_store(build: Build, inbox: Inbox) -> None:
    """Ready is who would take an event now."""
    answer = await get(build(), "/readyz")

    assert (answer.status, answer.json) == (200, {"status": "ready"})
    assert inbox.calls == ["open", "ping"]


async def test_readyz_is_503_while_the_store_is_down(
    build: Build, inbox: Inbox, told: list[TelemetryEvent]
) -> None:
    """F20: no deliveries are wanted where they cannot be stored; later they are again."""
    app = build()
    inbox.failure = StoreUnavailable("disk full")
    down = await get(app, "/readyz")
    inbox.failure = None
    up = await get(app, "/readyz")

    assert (down.status, up.status) == (503, 200)
    assert down.header(b"content-type") == b"application/problem+json"
    assert down.header(b"retry-after") == b"5"
    assert b"disk" not in down.body
    assert told == [TelemetryEvent("store.failed", error="StoreUnavailable: disk full")]


async def test_readyz_does_not_wait_for_a_store_that_hangs(
    build: Build, inbox: Inbox, told: list[TelemetryEvent]
) -> None:
    """F20: no answer within the limit is the answer no."""
    inbox.hangs = True

    answer = await get(build(ready_timeout=0.01), "/readyz")

    assert (answer.status, told[0].error) == (503, "TimeoutError")


async def test_readyz_is_503_during_shutdown(build: Build, inbox: Inbox) -> None:
    """F40: who is going away wants no more; a late delivery is told to come again."""
    app = build()
    app.state.lifecycle.closing = True

    ready = await get(app, "/readyz")
    late = await post(app)

    assert (ready.status, late.status, inbox.calls) == (503, 503, ["add"])


async def test_metrics_count_deliveries_and_measure_the_queue(build: Build) -> None:
    """F44: the age of the oldest open event is measured at every scrape."""
    metrics, now = Metrics(), NOW
    app = build(hooks=[metrics], metrics=metrics, clock=lambda: now)
    await post(app)
    await post(app)
    await post(app, secret="whsec_wrong")
    await post(app, path="/webhooks/nobody")
    now += 90

    answer = await get(app, "/metrics")

    assert answer.status == 200
    kind = answer.header(b"content-type")
    assert kind is not None
    assert kind.startswith(b"text/plain; version=")
    text = answer.body.decode()
    for line in (
        'wavehook_deliveries_total{result="new",source="wavespeed"} 1.0',
        'wavehook_deliveries_total{result="duplicate",source="wavespeed"} 1.0',
        'wavehook_deliveries_total{result="signature",source="wavespeed"} 1.0',
        'wavehook_deliveries_total{result="unknown_source",source="unknown"} 1.0',
        'wavehook_events_total{source="wavespeed",type="prediction.completed"} 1.0',
        'wavehook_queue_depth{handler="keep",state="pending"} 1.0',
        "wavehook_oldest_unhandled_age_seconds 90.0",
        "wavehook_ack_seconds_count 2.0",
    ):
        assert line in text


@pytest.mark.parametrize("hangs", [False, True])
async def test_a_scrape_survives_a_store_that_is_down(
    build: Build, inbox: Inbox, hangs: bool
) -> None:
    """F20: counters are served, the queue's gauges are left out, and the failure is counted."""
    metrics = Metrics()
    app = build(metrics=metrics, ready_timeout=0.01)
    inbox.failure, inbox.hangs = StoreUnavailable("down"), hangs

    answer = await get(app, "/metrics")

    text = answer.body.decode()
    assert answer.status == 200
    assert "wavehook_store_errors_total 1.0" in text
    assert "wavehook_oldest_unhandled_age_seconds" not in text


async def test_without_metrics_there_is_no_page(app: Starlette) -> None:
    """What is not kept is not served."""
    assert (await get(app, "/metrics")).status == 404

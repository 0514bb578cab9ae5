"""The metrics: names and labels that dashboards and alerts depend on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from receiver.event import DispatchState
from receiver.stores.base import Stats
from receiver.telemetry import TelemetryEvent
from receiver.telemetry.metrics import Metrics

EMPTY = Stats({}, None)


def samples(metrics: Metrics, stats: Stats | None = EMPTY, now: float = 0.0) -> dict[str, float]:
    """Every sample as `name{labels}`, without creation times and buckets."""

    def read() -> Iterator[tuple[str, float]]:
        for family in text_string_to_metric_families(metrics.render(stats, now).decode()):
            for sample in family.samples:
                if not sample.name.endswith(("_created", "_bucket")):
                    labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
                    yield f"{sample.name}{{{labels}}}" if labels else sample.name, sample.value

    return dict(read())


def test_a_fresh_registry_shows_the_unlabelled_ones() -> None:
    """An alert on a counter works before anything was counted."""
    assert samples(Metrics()) == {
        "wavehook_ack_seconds_count": 0.0,
        "wavehook_ack_seconds_sum": 0.0,
        "wavehook_store_errors_total": 0.0,
        "wavehook_contradictions_total": 0.0,
        "wavehook_follower_errors_total": 0.0,
        "wavehook_reconcile_asked_total": 0.0,
        "wavehook_reconcile_found_total": 0.0,
        "wavehook_oldest_unhandled_age_seconds": 0.0,
    }


def test_what_a_reconcile_did() -> None:
    """F29, F31: questions, finds and contradictions count; what it stored counts as events."""
    metrics = Metrics()
    for name in ("asked", "asked", "found", "failed"):
        metrics(TelemetryEvent(f"reconcile.{name}", task_id="t"))
    metrics(TelemetryEvent("reconcile.stored", source="wavespeed", type="prediction.failed"))
    metrics(TelemetryEvent("prediction.contradicted", type="prediction.failed"))
    metrics(TelemetryEvent("follower.failed"))

    found = samples(metrics)

    assert found["wavehook_reconcile_asked_total"] == 2
    assert found["wavehook_reconcile_found_total"] == 1
    assert found["wavehook_events_total{source=wavespeed,type=prediction.failed}"] == 1
    assert found["wavehook_contradictions_total"] == 1
    assert found["wavehook_follower_errors_total"] == 1


def test_overdue_submissions_are_there_where_somebody_knows() -> None:
    """A figure that is not known is left out, because 0 would look like health."""
    metrics = Metrics()

    assert b"wavehook_reconcile_overdue 3.0" in metrics.render(None, 0.0, overdue=3)
    assert b"wavehook_reconcile_overdue" not in metrics.render(None, 0.0)


def test_deliveries_and_events() -> None:
    """Every delivery counts by its result; only new events count as events."""
    metrics = Metrics()
    accepted = {"source": "wavespeed", "type": "prediction.completed", "seconds": 0.5}
    for result in ("new", "duplicate", "duplicate"):
        metrics(TelemetryEvent("delivery.accepted", result=result, **accepted))  # type: ignore[arg-type]
    metrics(
        TelemetryEvent("delivery.rejected", source="wavespeed", result="signature", seconds=9.0)
    )
    metrics(
        TelemetryEvent("delivery.failed", source="wavespeed", result="unavailable", seconds=9.0)
    )

    found = samples(metrics)

    assert found["wavehook_deliveries_total{result=new,source=wavespeed}"] == 1
    assert found["wavehook_deliveries_total{result=duplicate,source=wavespeed}"] == 2
    assert found["wavehook_deliveries_total{result=signature,source=wavespeed}"] == 1
    assert found["wavehook_deliveries_total{result=unavailable,source=wavespeed}"] == 1
    assert found["wavehook_events_total{source=wavespeed,type=prediction.completed}"] == 1
    assert found["wavehook_ack_seconds_count"] == 3
    assert found["wavehook_ack_seconds_sum"] == 1.5


def test_a_stranger_cannot_multiply_labels() -> None:
    """F17: an unknown source is `unknown`, an unknown type is `other`."""
    metrics = Metrics()
    for number in range(100):
        metrics(TelemetryEvent("delivery.rejected", result="unknown_source"))
        kind = f"prediction.{number}"
        metrics(TelemetryEvent("delivery.accepted", source="wavespeed", type=kind, result="new"))
    metrics(TelemetryEvent("delivery.accepted", source="wavespeed", type="parked", result="new"))

    found = samples(metrics)

    assert found["wavehook_deliveries_total{result=unknown_source,source=unknown}"] == 100
    assert found["wavehook_events_total{source=wavespeed,type=other}"] == 100
    assert found["wavehook_events_total{source=wavespeed,type=parked}"] == 1
    assert len([name for name in found if name.startswith("wavehook_events")]) == 2


def test_details_that_say_little_are_counted_all_the_same() -> None:
    """A hook must not raise, whatever it is told."""
    metrics = Metrics()
    for name in (
        "delivery.accepted",
        "delivery.rejected",
        "dispatch.settled",
        "dispatch.lost",
        "something.new",
    ):
        metrics(TelemetryEvent(name))

    found = samples(metrics)

    assert found["wavehook_deliveries_total{result=new,source=unknown}"] == 1
    assert found["wavehook_deliveries_total{result=error,source=unknown}"] == 1
    assert found["wavehook_dispatches_total{handler=unknown,outcome=unknown}"] == 1


def test_dispatches() -> None:
    """Runs count by handler and outcome; retries and the dead have counters of their own."""
    metrics = Metrics()
    for outcome in ("done", "retry", "retry", "dead", "released"):
        metrics(TelemetryEvent("dispatch.settled", handler="keep", outcome=outcome, seconds=2.0))
    metrics(TelemetryEvent("dispatch.lost", handler="keep"))

    found = samples(metrics)

    for outcome, count in {"done": 1, "retry": 2, "dead": 1, "released": 1, "lost": 1}.items():
        assert found[f"wavehook_dispatches_total{{handler=keep,outcome={outcome}}}"] == count
    assert found["wavehook_retries_total{handler=keep}"] == 2
    assert found["wavehook_dead_total{handler=keep}"] == 1
    assert found["wavehook_handler_seconds_sum{handler=keep}"] == 10


def test_the_store_s_failures_are_counted() -> None:
    """F20: an outage shows as a counter that rises."""
    metrics = Metrics()
    for _ in range(3):
        metrics(TelemetryEvent("store.failed", error="disk full"))

    assert samples(metrics)["wavehook_store_errors_total"] == 3


def test_the_queue_is_measured_with_no_exclusions() -> None:
    """F44: the oldest open event's age, whatever it waits for, as the store says it now."""
    metrics = Metrics()
    depth = {
        ("keep", DispatchState.PENDING): 3,
        ("keep", DispatchState.DEAD): 1,
        ("tell", DispatchState.LEASED): 2,
        ("tell", DispatchState.DONE): 9,
    }

    found = samples(metrics, Stats(depth, 1000.0), now=1090.5)

    assert {name: value for name, value in found.items() if "depth" in name} == {
        "wavehook_queue_depth{handler=keep,state=pending}": 3,
        "wavehook_queue_depth{handler=keep,state=dead}": 1,
        "wavehook_queue_depth{handler=tell,state=leased}": 2,
    }
    assert found["wavehook_oldest_unhandled_age_seconds"] == 90.5


@pytest.mark.parametrize("oldest", [None, 2000.0])
def test_the_age_is_never_below_zero(oldest: float | None) -> None:
    """F6, F44: nothing open, or a clock that was set back, is no age."""
    found = samples(Metrics(), Stats({}, oldest), now=1000.0)

    assert found["wavehook_oldest_unhandled_age_seconds"] == 0


def test_what_the_store_did_not_say_is_left_out() -> None:
    """F20, F44: the last known figure would look like health."""
    metrics = Metrics()
    samples(metrics, Stats({("keep", DispatchState.PENDING): 3}, 0.0), now=5.0)

    found = samples(metrics, None, now=6.0)

    assert not [name for name in found if "queue" in name or "oldest" in name]


def test_two_apps_count_apart() -> None:
    """F45: a registry of its own: nothing is global, and fifty starts leave nothing behind."""
    first, second = Metrics(), Metrics()
    first(TelemetryEvent("store.failed"))

    assert samples(second)["wavehook_store_errors_total"] == 0
    assert not [f for f in REGISTRY.collect() if f.name.startswith("wavehook")]

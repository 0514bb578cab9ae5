"""Prometheus metrics in their own registry, with a bounded set of label values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from receiver.event import PARKED, DispatchState
from receiver.stores.base import Stats
from receiver.telemetry import TelemetryEvent
from submitter.prediction import Status

_ACK_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
_HANDLER_BUCKETS = (0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0)
_TYPES = frozenset({PARKED, *(f"prediction.{status}" for status in Status)})


class Metrics:
    """A hook that counts telemetry events, and renders the counters.

    The labels `source` and `handler` come from the settings, `result` and `outcome` from the code.
    A delivery to a source that is not configured counts as `unknown`, an unknown type as `other`,
    so that no sender can multiply the time series.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._queue = _Queue()
        self._registry.register(self._queue)
        self._deliveries = self._counter(
            "wavehook_deliveries_total", "Deliveries, by result.", "source", "result"
        )
        self._events = self._counter(
            "wavehook_events_total", "Events stored, without duplicates.", "source", "type"
        )
        self._dispatches = self._counter(
            "wavehook_dispatches_total", "Attempts of a handler, by outcome.", "handler", "outcome"
        )
        self._retries = self._counter(
            "wavehook_retries_total", "Attempts that will be retried.", "handler"
        )
        self._dead = self._counter("wavehook_dead_total", "Dispatches given up.", "handler")
        self._ack = Histogram(
            "wavehook_ack_seconds",
            "From a delivery's first byte to its response, if it was accepted.",
            buckets=_ACK_BUCKETS,
            registry=self._registry,
        )
        handled = Histogram(
            "wavehook_handler_seconds",
            "Duration of an attempt of a handler.",
            ["handler"],
            buckets=_HANDLER_BUCKETS,
            registry=self._registry,
        )
        self._handled = _Children(handled)
        self._store_errors = self._plain(
            "wavehook_store_errors_total", "Failed operations of the store."
        )
        self._contradictions = self._plain(
            "wavehook_contradictions_total", "Tasks that ended in two different ways."
        )
        self._ledger_errors = self._plain(
            "wavehook_follower_errors_total", "Failed updates of the ledger with results."
        )
        self._fetches = self._plain(
            "wavehook_reconcile_asked_total",
            "Requests to the API about tasks whose webhook is overdue or stale.",
        )
        self._fetched = self._plain(
            "wavehook_reconcile_found_total", "Results fetched from the API."
        )
        self._on: dict[str, Callable[[TelemetryEvent], None]] = {
            "delivery.accepted": self._accepted,
            "delivery.rejected": self._refused,
            "delivery.failed": self._refused,
            "dispatch.settled": self._settled,
            "dispatch.lost": self._lost,
            "store.failed": lambda _: self._store_errors.inc(),
            "follower.failed": lambda _: self._ledger_errors.inc(),
            "prediction.contradicted": lambda _: self._contradictions.inc(),
            "reconcile.asked": lambda _: self._fetches.inc(),
            "reconcile.stored": self._stored,
            "reconcile.found": lambda _: self._fetched.inc(),
        }

    def __call__(self, event: TelemetryEvent) -> None:
        """Count a telemetry event."""
        count = self._on.get(event.name)
        if count is not None:
            count(event)

    def render(self, stats: Stats | None, now: float, *, overdue: int | None = None) -> bytes:
        """Render all metrics in Prometheus' text format.

        Args:
            stats: of the queue; None if the store failed: its gauges are left out then, because a
                stale or empty figure would look healthy.
            now: Unix seconds.
            overdue: the number of overdue submissions; None if unknown.
        """
        self._queue.stats, self._queue.now, self._queue.overdue = stats, now, overdue
        return generate_latest(self._registry)

    def _plain(self, name: str, text: str) -> Counter:
        return Counter(name, text, registry=self._registry)

    def _counter(self, name: str, text: str, *labels: str) -> _Children[Counter]:
        return _Children(Counter(name, text, labels, registry=self._registry))

    def _accepted(self, event: TelemetryEvent) -> None:
        source, result = event.source or "unknown", event.result or "new"
        self._deliveries[source, result].inc()
        if event.seconds is not None:
            self._ack.observe(event.seconds)
        if result == "new":
            self._stored(event)

    def _stored(self, event: TelemetryEvent) -> None:
        type = event.type if event.type in _TYPES else "other"
        self._events[event.source or "unknown", type].inc()

    def _refused(self, event: TelemetryEvent) -> None:
        self._deliveries[event.source or "unknown", event.result or "error"].inc()

    def _settled(self, event: TelemetryEvent) -> None:
        handler, outcome = event.handler or "unknown", event.outcome or "unknown"
        self._dispatches[handler, outcome].inc()
        if event.seconds is not None:
            self._handled[handler,].observe(event.seconds)
        if outcome == "retry":
            self._retries[handler,].inc()
        elif outcome == "dead":
            self._dead[handler,].inc()

    def _lost(self, event: TelemetryEvent) -> None:
        self._dispatches[event.handler or "unknown", "lost"].inc()


M = TypeVar("M", bound=MetricWrapperBase)


class _Children(dict[tuple[str, ...], M]):
    """Children of a metric by their labels.

    A call of `labels()` for each event costs 6 µs more of the app's 51 µs a delivery
    (tests/bench/test_ack.py, the app alone).
    """

    def __init__(self, parent: M) -> None:
        super().__init__()
        self._parent = parent

    def __missing__(self, labels: tuple[str, ...]) -> M:
        child = self[labels] = self._parent.labels(*labels)
        return child


class _Queue:
    """Collector of the gauges that are read from store and ledger at every scrape."""

    stats: Stats | None = None
    now = 0.0
    overdue: int | None = None

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges; called by prometheus_client."""
        if self.overdue is not None:
            yield GaugeMetricFamily(
                "wavehook_reconcile_overdue",
                "Submissions whose result is overdue.",
                value=self.overdue,
            )
        if self.stats is None:
            return
        depth = GaugeMetricFamily(
            "wavehook_queue_depth",
            "Dispatches that are not done, by state.",
            labels=("handler", "state"),
        )
        for (handler, state), count in self.stats.depth.items():
            if state is not DispatchState.DONE:
                depth.add_metric((handler, state.value), count)
        yield depth
        oldest = self.stats.oldest_open
        yield GaugeMetricFamily(
            "wavehook_oldest_unhandled_age_seconds",
            "Age of the oldest event with an open dispatch, with no exclusions; 0 for none.",
            value=0.0 if oldest is None else max(self.now - oldest, 0.0),
        )

"""The metrics: Prometheus, in their own registry, with labels that no stranger can multiply."""

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
    """A hook that counts, and what it has counted as text.

    `source` and `handler` come from the settings, `result` and `outcome` from our own words; a
    delivery to a source that is not configured counts as `unknown`, a type that is not known as
    `other`.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._queue = _Queue()
        self._registry.register(self._queue)
        self._deliveries = self._counter(
            "wavehook_deliveries_total", "Deliveries, by what they came to.", "source", "result"
        )
        self._events = self._counter(
            "wavehook_events_total", "Events stored, duplicates left out.", "source", "type"
        )
        self._dispatches = self._counter(
            "wavehook_dispatches_total", "Runs of a handler, by outcome.", "handler", "outcome"
        )
        self._retries = self._counter(
            "wavehook_retries_total", "Runs that will be tried again.", "handler"
        )
        self._dead = self._counter("wavehook_dead_total", "Dispatches given up.", "handler")
        self._ack = Histogram(
            "wavehook_ack_seconds",
            "From a delivery's first byte to its answer, where it was taken in.",
            buckets=_ACK_BUCKETS,
            registry=self._registry,
        )
        handled = Histogram(
            "wavehook_handler_seconds",
            "How long a handler ran.",
            ["handler"],
            buckets=_HANDLER_BUCKETS,
            registry=self._registry,
        )
        self._handled = _Children(handled)
        self._store_errors = self._plain(
            "wavehook_store_errors_total", "Times that the store could not do what it was asked."
        )
        self._contradictions = self._plain(
            "wavehook_contradictions_total", "Tasks that ended in two ways."
        )
        self._untold = self._plain(
            "wavehook_follower_errors_total", "Times that the ledger could not be told of results."
        )
        self._asked = self._plain(
            "wavehook_reconcile_asked_total",
            "Questions to the API about tasks whose webhook is overdue or came late.",
        )
        self._found = self._plain(
            "wavehook_reconcile_found_total", "Results that the API was asked for."
        )
        self._on: dict[str, Callable[[TelemetryEvent], None]] = {
            "delivery.accepted": self._accepted,
            "delivery.rejected": self._refused,
            "delivery.failed": self._refused,
            "dispatch.settled": self._settled,
            "dispatch.lost": self._lost,
            "store.failed": lambda _: self._store_errors.inc(),
            "follower.failed": lambda _: self._untold.inc(),
            "prediction.contradicted": lambda _: self._contradictions.inc(),
            "reconcile.asked": lambda _: self._asked.inc(),
            "reconcile.stored": self._stored,
            "reconcile.found": lambda _: self._found.inc(),
        }

    def __call__(self, details: TelemetryEvent) -> None:
        """Count what happened."""
        count = self._on.get(details.name)
        if count is not None:
            count(details)

    def render(self, stats: Stats | None, now: float, *, overdue: int | None = None) -> bytes:
        """Everything in Prometheus' text format.

        Args:
            stats: how the queue stands; None where the store did not say: its gauges are left out
                then, because a stale or empty figure would look like health.
            now: Unix seconds.
            overdue: submissions past the time of their result; None where nobody knows.
        """
        self._queue.stats, self._queue.now, self._queue.overdue = stats, now, overdue
        return generate_latest(self._registry)

    def _plain(self, name: str, text: str) -> Counter:
        return Counter(name, text, registry=self._registry)

    def _counter(self, name: str, text: str, *labels: str) -> _Children[Counter]:
        return _Children(Counter(name, text, labels, registry=self._registry))

    def _accepted(self, details: TelemetryEvent) -> None:
        source, result = details.source or "unknown", details.result or "new"
        self._deliveries[source, result].inc()
        if details.seconds is not None:
            self._ack.observe(details.seconds)
        if result == "new":
            self._stored(details)

    def _stored(self, details: TelemetryEvent) -> None:
        type = details.type if details.type in _TYPES else "other"
        self._events[details.source or "unknown", type].inc()

    def _refused(self, details: TelemetryEvent) -> None:
        self._deliveries[details.source or "unknown", details.result or "error"].inc()

    def _settled(self, details: TelemetryEvent) -> None:
        handler, outcome = details.handler or "unknown", details.outcome or "unknown"
        self._dispatches[handler, outcome].inc()
        if details.seconds is not None:
            self._handled[handler,].observe(details.seconds)
        if outcome == "retry":
            self._retries[handler,].inc()
        elif outcome == "dead":
            self._dead[handler,].inc()

    def _lost(self, details: TelemetryEvent) -> None:
        self._dispatches[details.handler or "unknown", "lost"].inc()


M = TypeVar("M", bound=MetricWrapperBase)


class _Children(dict[tuple[str, ...], M]):
    """The children of a metric by their labels; asking `labels()` every time costs more."""

    def __init__(self, parent: M) -> None:
        super().__init__()
        self._parent = parent

    def __missing__(self, labels: tuple[str, ...]) -> M:
        child = self[labels] = self._parent.labels(*labels)
        return child


class _Queue:
    """The gauges that are read from the store and the ledger at every scrape."""

    stats: Stats | None = None
    now = 0.0
    overdue: int | None = None

    def collect(self) -> Iterator[Metric]:
        """See `prometheus_client.registry.Collector`."""
        if self.overdue is not None:
            yield GaugeMetricFamily(
                "wavehook_reconcile_overdue",
                "Submissions whose result was expected by now.",
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

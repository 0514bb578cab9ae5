"""The story of a demo: what is submitted, what goes wrong on purpose, and how it ended.

`run` tells it in order. `DemoLog` collects what the receiver reports meanwhile, and `publish` is
the handler. The figures of the summary are checked on three sides: the receiver's telemetry, the
handler's own count, and the inbox.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
from cryptography.fernet import Fernet

from receiver.build import ReceiverParts, build
from receiver.config import Secret, Settings
from receiver.event import Dispatch, DispatchState, Event
from receiver.handlers.base import Context
from receiver.handlers.decorator import on
from receiver.handlers.retry import Backoff
from receiver.telemetry import TelemetryEvent
from submitter.api.transport import tls_context
from submitter.client import WaveSpeed
from submitter.prediction import JSON
from submitter.settings import SubmitSettings
from submitter.simulator import FaultKind, Faults, Simulator
from submitter.simulator.server import serving
from submitter.simulator.webhook_sender import sign

if TYPE_CHECKING:
    from receiver.demo.view import View

MODEL = "kwaivgi/kling-v2.1-i2v-standard"
TASKS = 10

HANDLER = "demo"
"""Name of the demo's own handler."""

FAIL_FIRST = "fail_first"
"""Key of a context that makes the handler's first attempt fail."""

LEASE_S = 2.0
"""Seconds after which another worker takes over the dispatch of the killed one."""

TIMEOUT_WITH_USER_HANDLERS_S = 120.0

VIEW_INTERVAL_S = 0.08


@dataclass(frozen=True, slots=True)
class Scenario:
    """Pace and faults of a demo.

    Attributes:
        speed: simulated seconds per second.
        faults: in the syntax of `wavehook simulate --faults`.
        seed: of the faults.
        timeout_s: seconds for the whole demo without handlers of the user.
    """

    speed: float = 20.0
    faults: str = "duplicate=0.3,reorder=0.3,early-webhook=0.1"
    seed: int = 39
    timeout_s: float = 25.0


@dataclass(frozen=True, slots=True)
class DemoInbox:
    """Database of a demo.

    Attributes:
        settings: the database; all other settings have their defaults.
        kept: it is not removed afterwards.
    """

    settings: Settings
    kept: bool = False


def file_inbox(path: Path, *, kept: bool = False) -> DemoInbox:
    """An inbox in a SQLite file."""
    return DemoInbox(Settings(database=f"sqlite:///{path}"), kept)


@dataclass(frozen=True, slots=True)
class DemoSummary:
    """Figures of a finished demo; `wavehook demo --json` prints them.

    Attributes:
        submitted: tasks that the API accepted.
        verified: webhooks with a valid signature, duplicates included.
        duplicates_dropped: verified webhooks whose event was stored already.
        forgeries_refused: webhooks without a valid signature.
        retried: handler attempts that failed, or were lost with a worker.
        handled: tasks whose handler succeeded.
        exactly_once: every task was handled once, under its own idempotency key, and nothing else.
        seconds: duration of the demo.
        database: database of a kept inbox; None if it was removed.
        schema: schema of a kept inbox on PostgreSQL.
        handlers: number of dispatches by state, for each handler of the user.
    """

    submitted: int
    verified: int
    duplicates_dropped: int
    forgeries_refused: int
    retried: int
    handled: int
    exactly_once: bool
    seconds: float
    database: str | None = None
    schema: str | None = None
    handlers: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TaskRow:
    """One task in the table.

    Attributes:
        number: from 1, in order of submission.
        task_id: the API's id.
        webhooks: verified webhooks, duplicates included.
        attempts: attempts of the demo's handler.
        handled: the demo's handler succeeded.
    """

    number: int
    task_id: str
    webhooks: int
    attempts: int
    handled: bool


class DemoLog:
    """Record of a running demo, by task; `notes` are its story in lines.

    Args:
        total: number of tasks to be submitted.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        #: Outcomes of the user's handlers, by handler.
        self.user_handlers: dict[str, Counter[str]] = {}
        #: Runs of the demo's handler to their end, by task id and idempotency key.
        self.runs: Counter[tuple[str, str]] = Counter()
        self.tasks: list[str] = []
        self.notes: list[str] = []
        self.refused = 0
        self.verified: Counter[str] = Counter()
        self.duplicates = 0
        self.failed = 0
        self.attempts: Counter[str] = Counter()
        self.done: set[str] = set()
        self.stored = asyncio.Event()

    def submitted(self, task_id: str) -> None:
        """Record a submit; the task's webhook may have arrived already."""
        self.tasks.append(task_id)
        early = task_id in self.verified
        self._note(task_id, "submitted" + ("; its webhook arrived even earlier" if early else ""))

    def killed(self, task_id: str) -> None:
        """Record that a worker took the task's dispatch and died."""
        self.attempts[task_id] += 1
        self.failed += 1
        self._note(task_id, f"its worker was killed; another takes over in {LEASE_S:g} s")

    def hook(self, details: TelemetryEvent) -> None:
        """Record what the receiver reports."""
        task_id = _task_of(details.event_id)
        outcomes = self.user_handlers.get(details.handler or "")
        reason = f" ({details.error})" if details.error else ""
        match details.name, details.result or details.outcome:
            case "delivery.rejected", _:
                self.refused += 1
                self.notes.append(
                    f"forged webhook refused: invalid signature, HTTP status {details.status}"
                )
            case "delivery.accepted", "duplicate":
                self.verified[task_id] += 1
                self.duplicates += 1
                self._note(task_id, "duplicate webhook dropped")
            case "delivery.accepted", _:
                self.verified[task_id] += 1
                self._note(task_id, "webhook verified and stored")
                self.stored.set()
            case "dispatch.settled", outcome if outcomes is not None and outcome is not None:
                outcomes[outcome] += 1
                self.failed += outcome != "done"
                note = f"{details.handler}: {outcome}, attempt {details.attempt}{reason}"
                self._note(task_id, note)
            case "dispatch.settled", "done":
                self.attempts[task_id] += 1
                self.done.add(task_id)
                self._note(task_id, f"handled, attempt {details.attempt}")
            case "dispatch.settled", outcome:
                self.attempts[task_id] += 1
                self.failed += 1
                failed = "failed" if outcome == "retry" else f"failed, {outcome}"
                self._note(task_id, f"attempt {details.attempt} {failed}{reason}")

    @property
    def complete(self) -> bool:
        """True when every task is submitted and handled."""
        return len(self.tasks) == self.total and self.done.issuperset(self.tasks)

    @property
    def rows(self) -> list[TaskRow]:
        """The submitted tasks."""
        return [
            TaskRow(number, id, self.verified[id], self.attempts[id], id in self.done)
            for number, id in enumerate(self.tasks, 1)
        ]

    def _note(self, task_id: str, text: str) -> None:
        known = task_id in self.tasks
        number = f"{self.tasks.index(task_id) + 1:>2}" if known else " ?"
        self.notes.append(f"task {number} {task_id[:8]}  {text}")


def _task_of(event_id: str | None) -> str:
    """Task id in an event's id, `source:subject:status`."""
    return event_id.split(":")[1] if event_id and event_id.count(":") == 2 else ""


RUNS: ContextVar[Counter[tuple[str, str]]] = ContextVar("runs")
"""`DemoLog.runs` of the running demo; the dispatcher's tasks inherit it."""


@on("prediction.*", name=HANDLER, timeout="10s", retry=Backoff(attempts=6, base=0.4, cap=1.0))
async def publish(event: Event, context: Context) -> JSON:
    """The demo's handler: download the video, and return its size."""
    prediction = event.prediction
    if prediction is None or not prediction.outputs or not isinstance(event.context, dict):
        raise ValueError("an event of the demo must have an output and a context")
    if event.context.get(FAIL_FIRST) and context.attempt == 1:
        raise ConnectionError("fails once on purpose")
    async with httpx.AsyncClient(trust_env=False, verify=tls_context()) as client:
        response = await client.get(prediction.outputs[0])
    response.raise_for_status()
    RUNS.get()[prediction.id, context.key] += 1
    return {
        "task": event.context.get("task"),
        "video": prediction.outputs[0],
        "bytes": len(response.content),
    }


async def run(
    view: View,
    inbox: DemoInbox,
    user_settings: Settings | None = None,
    scenario: Scenario = Scenario(),
) -> DemoSummary:
    """Run a demo.

    Args:
        view: shows it.
        inbox: where the inbox is created.
        user_settings: settings whose handlers run too.
        scenario: pace and faults.

    Raises:
        SettingsError: a handler cannot be built.
    """
    started = time.monotonic()
    log = DemoLog(TASKS)
    RUNS.set(log.runs)
    key = Fernet.generate_key().decode()
    timeout_s = TIMEOUT_WITH_USER_HANDLERS_S if user_settings else scenario.timeout_s
    faults = Faults.parse(scenario.faults, scenario.seed)
    async with Simulator(speed=scenario.speed, faults=faults) as sim:
        parts = _build_receiver(sim, inbox.settings, user_settings, key, log)
        log.user_handlers = {
            each.name: Counter() for each in parts.handlers if each.name != HANDLER
        }
        async with serving(parts.app, lifespan=True) as url, _shown(view, log, sim):
            log.notes.append(f"simulated API on {sim.url}, receiver on {url}")
            try:
                async with asyncio.timeout(timeout_s):
                    await _submit(sim, url, key, parts, log)
                    await _forge_a_webhook(sim, url)
                    await log.stored.wait()
                    await _kill_a_worker(parts, log)
                    await parts.dispatcher.start()
                    await _until_done(parts, log, sim)
            except TimeoutError:
                log.notes.append(f"stopped after {timeout_s:g} s: not every task was handled")
            finally:
                await parts.dispatcher.stop(1.0)
            events = await parts.store.events(limit=500)
            stored = [await parts.store.dispatches(each.event.id) for each in events]
    return _summarize(log, stored, inbox, seconds=time.monotonic() - started)


def _build_receiver(
    sim: Simulator, inbox: Settings, user_settings: Settings | None, key: str, log: DemoLog
) -> ReceiverParts:
    """The receiver as `serve` builds it, except that the story starts its dispatcher."""
    settings = replace(
        inbox,
        modules=("receiver.demo.story", *(user_settings.modules if user_settings else ())),
        handlers=user_settings.handlers if user_settings else inbox.handlers,
        seal_keys=(Secret(key),),
        dispatch="external",
        lease=LEASE_S,
    )
    return build(settings, secrets=[sim.secret], hooks=[log.hook])


async def _submit(sim: Simulator, url: str, key: str, parts: ReceiverParts, log: DemoLog) -> None:
    # A plain transport: no proxy of the environment between two ports of this machine.
    transport = httpx.AsyncHTTPTransport()
    settings = SubmitSettings("any-key", sim.url, public_url=url, seal_keys=(key,))
    async with WaveSpeed(ledger=parts.ledger, settings=settings, transport=transport) as wave:
        for number in range(1, TASKS + 1):
            submission = await wave.submit(
                MODEL,
                prompt=f"A lighthouse at dusk, take {number}",
                image=sim.first_frame,
                context={"task": number, FAIL_FIRST: number == TASKS},
            )
            log.submitted(submission.task_id or "")


async def _forge_a_webhook(sim: Simulator, url: str) -> None:
    """Post a result for a real task, signed with a guessed secret."""
    task, now = sim.tasks[-1], int(time.time())
    body = json.dumps(
        {"id": task.id, "status": "completed", "model": MODEL, "outputs": ["https://evil.example"]}
    ).encode()
    headers = {
        "content-type": "application/json",
        "webhook-id": task.id,
        "webhook-timestamp": str(now),
        "webhook-signature": sign("whsec_guessed", task.id, now, body),
    }
    async with httpx.AsyncClient(trust_env=False) as client:
        await client.post(f"{url}/webhooks/wavespeed", content=body, headers=headers)


async def _kill_a_worker(parts: ReceiverParts, log: DemoLog) -> None:
    """Leave the lease that a worker leaves at SIGKILL: taken, and never settled.

    It is a lease of the demo's handler only: a handler of the user must run once.
    """
    claims = await parts.store.claim("a killed worker", {HANDLER: 1}, LEASE_S, time.time())
    for claim in claims:
        log.killed(claim.event.subject or "")


async def _until_done(parts: ReceiverParts, log: DemoLog, sim: Simulator) -> None:
    """Wait until tasks, webhooks and dispatches are all done; nothing signals all three."""
    webhooks = sum(1 + sim.faults.hits(FaultKind.DUPLICATE, task.number) for task in sim.tasks)

    async def is_done() -> bool:
        if not log.complete or sum(attempt.accepted for attempt in sim.attempts) < webhooks:
            return False
        return not any(state.open for _, state in (await parts.store.stats()).depth)

    while not await is_done():  # noqa: ASYNC110
        await asyncio.sleep(0.02)


@asynccontextmanager
async def _shown(view: View, log: DemoLog, sim: Simulator) -> AsyncIterator[None]:
    """Update the view while the block runs, and once at its end."""

    def show() -> None:
        now = time.time()
        view.show(log, {task.id: task.status(now).value for task in sim.tasks})

    async def keep_showing() -> None:
        while True:
            show()
            await asyncio.sleep(VIEW_INTERVAL_S)

    showing = asyncio.create_task(keep_showing())
    try:
        yield
    finally:
        showing.cancel()
        await asyncio.wait({showing})
        show()


def _summarize(
    log: DemoLog, stored: list[list[Dispatch]], inbox: DemoInbox, *, seconds: float
) -> DemoSummary:
    """Figures of a demo.

    Args:
        log: record of the demo.
        stored: the dispatches of every event in the inbox.
        inbox: its database.
        seconds: its duration.
    """
    states = Counter((each.handler, each.state) for dispatches in stored for each in dispatches)
    settings = inbox.settings
    return DemoSummary(
        submitted=len(log.tasks),
        verified=log.verified.total(),
        duplicates_dropped=log.duplicates,
        forgeries_refused=log.refused,
        retried=log.failed,
        handled=len(log.done.intersection(log.tasks)),
        exactly_once=_exactly_once(log, stored),
        seconds=round(seconds, 3),
        database=settings.database_label if inbox.kept else None,
        schema=settings.database_schema if inbox.kept and settings.database_path is None else None,
        handlers={
            name: {state.value: count for state in DispatchState if (count := states[name, state])}
            for name in log.user_handlers
        },
    )


def _exactly_once(log: DemoLog, stored: list[list[Dispatch]]) -> bool:
    """True if each task ran once, under its own key, and nothing else ran."""
    runs = sorted(log.runs.elements())
    tasks = sorted(log.tasks)
    return (
        len(tasks) == log.total
        and [task for task, _ in runs] == tasks
        and len({key for _, key in runs}) == log.total
        and len(stored) == log.total
        and all(HANDLER in {each.handler for each in dispatches} for dispatches in stored)
        and all(each.state == "done" for dispatches in stored for each in dispatches)
        and log.refused == 1
    )

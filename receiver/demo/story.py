"""What happened in a demo, by task: fed by the receiver's hooks, read by the views.

Where a demo has its inbox: a file, or a schema of its own on the environment's PostgreSQL.

How a demo ended, by its handlers and by its inbox.

What `wavehook demo` does with a finished video: fetch it once, and count that it was done.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import typer

from receiver.config import Settings, load
from receiver.event import Dispatch, DispatchState, Event
from receiver.handlers.base import Context
from receiver.handlers.decorator import on
from receiver.handlers.retry import Backoff
from receiver.stores.base import Store
from receiver.telemetry import TelemetryEvent
from submitter.api.transport import tls
from submitter.prediction import JSON

OWN = "demo"
"""The name of the demo's own handler."""


@dataclass(frozen=True, slots=True)
class Row:
    """One task as the table shows it.

    Attributes:
        number: from 1, in order of submission.
        task_id: the API's id.
        webhooks: deliveries that verified, duplicates included.
        attempts: of its handler.
        handled: its handler has ended well.
    """

    number: int
    task_id: str
    webhooks: int
    attempts: int
    handled: bool


@dataclass(frozen=True, slots=True)
class Summary:
    """How a demo ended.

    Attributes:
        submitted: tasks that the API accepted.
        verified: webhooks whose signature was right, duplicates included.
        duplicates_dropped: of these, those that were stored before.
        forgeries_refused: webhooks that did not verify.
        retried: handler attempts that were lost or failed, and made good.
        handled: tasks whose handler ended well.
        exactly_once: every task was handled, once, under a key of its own, and nothing else was.
        seconds: how long it took.
        database: where the inbox was kept; None where it was not.
        schema: in which schema, on PostgreSQL.
        handlers: of the user's handlers, by name: how many dispatches are in each state.
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


class Ledger:
    """Collects; `notes` tell a person the story in order.

    Args:
        total: how many tasks there will be.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        #: Outcomes of the user's handlers, which run beside the demo's own, by name.
        self.guests: dict[str, Counter[str]] = {}
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
        """A task was accepted; its webhook may have come before (F28)."""
        self.tasks.append(task_id)
        early = task_id in self.verified
        self._note(task_id, "submitted" + (", after its webhook had come" if early else ""))

    def lost(self, task_id: str) -> None:
        """A worker took the task's dispatch and died."""
        self.attempts[task_id] += 1
        self.failed += 1
        self._note(task_id, "its first worker was killed; another takes over after the lease")

    def hook(self, details: TelemetryEvent) -> None:
        """Told by the receiver."""
        task_id = _task_of(details.event_id)
        guest = self.guests.get(details.handler or "")
        match details.name, details.result or details.outcome:
            case "delivery.rejected", _:
                self.refused += 1
                self.notes.append(f"a webhook with a wrong signature was refused: {details.status}")
            case "delivery.accepted", "duplicate":
                self.verified[task_id] += 1
                self.duplicates += 1
                self._note(task_id, "a duplicate of its webhook was dropped")
            case "delivery.accepted", _:
                self.verified[task_id] += 1
                self._note(task_id, "webhook verified and stored")
                self.stored.set()
            case "dispatch.settled", outcome if guest is not None and outcome is not None:
                guest[outcome] += 1
                self.failed += outcome != "done"
                why = f" ({details.error})" if details.error else ""
                self._note(task_id, f"{details.handler}: {outcome}, attempt {details.attempt}{why}")
            case "dispatch.settled", "done":
                self.attempts[task_id] += 1
                self.done.add(task_id)
                self._note(task_id, f"handled, attempt {details.attempt}")
            case "dispatch.settled", _:
                self.attempts[task_id] += 1
                self.failed += 1
                self._note(task_id, f"attempt {details.attempt} failed: {details.outcome}")

    @property
    def complete(self) -> bool:
        """Whether nothing is left to wait for."""
        return len(self.tasks) == self.total and self.done.issuperset(self.tasks)

    @property
    def rows(self) -> list[Row]:
        """The tasks so far."""
        return [
            Row(number, id, self.verified[id], self.attempts[id], id in self.done)
            for number, id in enumerate(self.tasks, 1)
        ]

    def _note(self, task_id: str, text: str) -> None:
        known = task_id in self.tasks
        number = f"{self.tasks.index(task_id) + 1:>2}" if known else " ?"
        self.notes.append(f"task {number} {task_id[:8]}  {text}")


def _task_of(event_id: str | None) -> str:
    """The task id in an event's id: `source:subject:status`."""
    return event_id.split(":")[1] if event_id and event_id.count(":") == 2 else ""


KEPT = "wavehook-demo.db"

_NAMES = ("WAVEHOOK_DATABASE", "WAVEHOOK_DATABASE_POOLER")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the inbox is.

    Attributes:
        settings: with the database, and else as they are by default.
        kept: it will still be there afterwards.
    """

    settings: Settings
    kept: bool = False


@asynccontextmanager
async def placed(path: str | None, *, keep: bool) -> AsyncIterator[Place]:
    """The place of one demo, which goes with it unless it is to be kept.

    Args:
        path: a file to keep it in.
        keep: keep it.

    Raises:
        SettingsError: the environment's database cannot be.
    """
    given = _given()
    if path is None and given.database_path is None:
        async with _schema(given, keep=keep) as place:
            yield place
    elif path is None and not keep:
        with tempfile.TemporaryDirectory(prefix="wavehook-demo-") as folder:
            yield in_file(Path(folder) / "inbox.db")
    else:
        yield in_file(_free(path or KEPT), kept=True)


def in_file(path: Path, *, kept: bool = False) -> Place:
    """A place in a SQLite file."""
    return Place(Settings(database=f"sqlite:///{path}"), kept)


def _given() -> Settings:
    """The environment's database alone: a demo is the same whatever all else says."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("WAVEHOOK_")}
    ours = {name: os.environ[name] for name in _NAMES if os.environ.get(name)}
    return load({**others, **ours, "WAVEHOOK_CONFIG": os.devnull}, cwd=Path.cwd())


@asynccontextmanager
async def _schema(given: Settings, *, keep: bool) -> AsyncIterator[Place]:
    schema = f"wavehook_demo_{secrets.token_hex(4)}"
    try:
        yield Place(replace(given, database_schema=schema), keep)
    finally:
        if not keep:
            from receiver.stores.postgres_migrate import remove

            await remove(given.database, schema, pooler=given.database_pooler)


def _free(name: str) -> Path:
    path = Path(name).resolve()
    if path.exists():
        raise typer.BadParameter(f"{path} is there already; name another", param_hint="PATH")
    if not path.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {path.parent}", param_hint="PATH")
    return path


STUMBLES = "stumbles"
"""The context's key that lets the first attempt fail."""


@dataclass(slots=True)
class Tally:
    """What handlers really did, beside what the store says of them.

    Attributes:
        runs: runs that came to their end, by task id and idempotency key.
    """

    runs: Counter[tuple[str, str]] = field(default_factory=Counter)


TALLY: ContextVar[Tally] = ContextVar("tally")
"""Of this demo; its dispatcher's tasks inherit it."""


@on("prediction.*", name=OWN, timeout="10s", retry=Backoff(attempts=6, base=0.4, cap=1.0))
async def publish(event: Event, context: Context) -> JSON:
    """Fetch the video, and keep its size as the result."""
    prediction = event.prediction
    if prediction is None or not prediction.outputs or not isinstance(event.context, dict):
        raise ValueError("the demo's tasks end with a video and carry a context")
    if event.context.get(STUMBLES) and context.attempt == 1:
        raise ConnectionError("this first attempt fails on purpose")
    async with httpx.AsyncClient(trust_env=False, verify=tls()) as client:
        answer = await client.get(prediction.outputs[0])
    answer.raise_for_status()
    TALLY.get().runs[prediction.id, context.key] += 1
    return {
        "task": event.context.get("task"),
        "video": prediction.outputs[0],
        "bytes": len(answer.content),
    }


async def settled(store: Store) -> bool:
    """Whether no handler has anything left to do."""
    depth = (await store.stats()).depth
    return not any(state.open for _, state in depth)


async def all_dispatches(store: Store) -> list[list[Dispatch]]:
    """The dispatches of every event."""
    return [await store.dispatches(listed.event.id) for listed in await store.events(limit=500)]


def summed_up(
    ledger: Ledger, tally: Tally, stored: list[list[Dispatch]], *, started: float, place: Place
) -> Summary:
    """The figures of a demo.

    Args:
        ledger: what was told of it.
        tally: what its own handler did.
        stored: what became of every event.
        started: by the monotonic clock.
        place: of the inbox.
    """
    states = Counter((each.handler, each.state) for dispatches in stored for each in dispatches)
    settings = place.settings
    return Summary(
        submitted=len(ledger.tasks),
        verified=ledger.verified.total(),
        duplicates_dropped=ledger.duplicates,
        forgeries_refused=ledger.refused,
        retried=ledger.failed,
        handled=len(ledger.done.intersection(ledger.tasks)),
        exactly_once=_exactly_once(ledger, tally, stored),
        seconds=round(time.monotonic() - started, 3),
        database=settings.database_label if place.kept else None,
        schema=settings.database_schema if place.kept and settings.database_path is None else None,
        handlers={
            guest: {
                state.value: count for state in DispatchState if (count := states[guest, state])
            }
            for guest in ledger.guests
        },
    )


def _exactly_once(ledger: Ledger, tally: Tally, stored: list[list[Dispatch]]) -> bool:
    """Each task once, under a key of its own, and no other."""
    runs = sorted(tally.runs.elements())
    tasks = sorted(ledger.tasks)
    return (
        len(tasks) == ledger.total
        and [task for task, _ in runs] == tasks
        and len({key for _, key in runs}) == ledger.total
        and len(stored) == ledger.total
        and all(OWN in {each.handler for each in dispatches} for dispatches in stored)
        and all(each.state == "done" for dispatches in stored for each in dispatches)
        and ledger.refused == 1
    )

"""How a demo ended, by its handlers and by its inbox."""

from __future__ import annotations

import time
from collections import Counter

from receiver.cli.demo_database import Place
from receiver.cli.demo_handler import Tally
from receiver.cli.demo_ledger import OWN, Ledger, Summary
from receiver.event import Dispatch, DispatchState
from receiver.stores.base import Store


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
        database=settings.database_place if place.kept else None,
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

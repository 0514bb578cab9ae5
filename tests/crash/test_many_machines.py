"""Receivers and workers on one PostgreSQL, as many as wanted, whatever their clocks say."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter

from tests.crash.fleet import SKEWED, Fleet, keys
from tests.crash.receiving import Receiver, event_id, until

LEASE = 1.0
"""Seconds; as the environment of the processes has it."""

HOUR = 3600.0


async def test_one_event_at_many_doors(fleet: Fleet) -> None:
    """F3, F43: 4 receivers and 4 workers, new on a new schema; each 2xx names what is stored."""
    receivers, _ = await fleet.start(4, 4)
    subjects = [f"task-{n}" for n in range(20)]

    sent = [(each, subject) for subject in subjects for each in receivers * 3]
    answers = await asyncio.gather(*(each.send(subject) for each, subject in sent))

    told = Counter(
        (answer.json()["id"], answer.status_code) for answer in answers if answer is not None
    )
    ids = {event_id(subject) for subject in subjects}
    assert told == {(id, status): n for id in ids for status, n in ((202, 1), (200, 11))}
    assert sorted(await fleet.stored()) == sorted(ids)
    await fleet.all_handled()
    assert fleet.ran() == dict.fromkeys(keys({*subjects}, "note", "tell"), 1)


async def test_clocks_that_differ(fleet: Fleet) -> None:
    """F6, F24, F25: PostgreSQL's clock says what is due, and whose lease has run out, to all."""
    receiver = await fleet.receiver(program=(*SKEWED, "-200"))
    await fleet.worker(program=(*SKEWED, f"-{HOUR}"))
    await fleet.worker(program=(*SKEWED, f"{HOUR}"))
    subjects = {f"task-{n}" for n in range(12)}
    for subject in sorted(subjects):
        assert await receiver.post(subject, "test/slow") == 202
    await fleet.all_handled()
    # Whoever is an hour ahead took nothing from whoever is an hour behind.
    assert fleet.ran("end") == fleet.ran("begin") == dict.fromkeys(keys(subjects, "slow"), 1)

    assert await receiver.post("last", "test/deadly") == 202
    await fleet.all_handled()
    first, second = await fleet.attempts("last", "deadly")
    assert (first.outcome, second.outcome) == ("lost", "done")
    assert second.started_at - first.started_at >= LEASE


async def test_the_survivors_do_the_work_of_the_killed(fleet: Fleet) -> None:
    """F24, F25: a killed worker's leases are taken over when they have run out."""
    (receiver,), (killed, survivor) = await fleet.start(1, 2)
    subjects = {f"task-{n}" for n in range(20)}
    await asyncio.gather(*(receiver.post(subject, "test/slow") for subject in subjects))
    await until(lambda: fleet.pids("begin") == {killed.pid, survivor.pid})
    await killed.end(signal.SIGKILL)

    await fleet.all_handled()

    assert {*fleet.ran("end")} == keys(subjects, "slow")
    for subject in subjects:
        rows = await fleet.attempts(subject, "slow")
        assert [row.outcome for row in rows] in (["done"], ["lost", "done"])


async def send_until_refused(receiver: Receiver, name: str) -> dict[str, int | None]:
    """Post until the receiver takes nothing more."""
    statuses: dict[str, int | None] = {}
    while None not in statuses.values():
        subject = f"{name}-{len(statuses)}"
        statuses[subject] = await receiver.post(subject)
    return statuses


async def test_a_rolling_restart_under_load(fleet: Fleet) -> None:
    """F40: SIGTERM ends receiver and worker with 0; nothing is lost, and nothing runs twice."""
    (old,), (old_worker,) = await fleet.start(1, 1)
    loading = [asyncio.ensure_future(send_until_refused(old, f"task-{n}")) for n in range(8)]
    (new,), _ = await fleet.start(1, 1)
    assert await old_worker.end(signal.SIGTERM) == 0
    assert await old.end(signal.SIGTERM) == 0

    statuses = {k: v for each in await asyncio.gather(*loading) for k, v in each.items()}
    assert {*statuses.values()} <= {202, 503, None}
    for subject, status in statuses.items():
        if status != 202:
            assert await new.post(subject) in {200, 202}
    await fleet.all_handled()
    assert fleet.ran() == dict.fromkeys(keys({*statuses}, "note", "tell"), 1)
    assert "Traceback" not in fleet.words

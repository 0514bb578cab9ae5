"""Receivers and workers on one PostgreSQL, as many as wanted, whatever their clocks say."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter

from tests.crash.fleet import SKEWED, Fleet, keys
from tests.crash.receiving import WAVEHOOK, Receiver, event_id
from tests.support.postgres_pooler import pooled
from tests.support.postgres_schemas import connected

LEASE = 1.0
"""Seconds; as the environment of the processes has it."""

HOUR = 3600.0


async def send_until_refused(receiver: Receiver, name: str) -> dict[str, int | None]:
    """Post until the receiver takes nothing more."""
    statuses: dict[str, int | None] = {}
    while None not in statuses.values():
        subject = f"{name}-{len(statuses)}"
        statuses[subject] = await receiver.post(subject)
    return statuses


async def test_one_event_at_many_doors(fleet: Fleet) -> None:
    """F3, F40, F43: 4 receivers and 4 workers, new on a new schema; then one of each is replaced.

    Each 2xx names what is stored, and nothing is lost or runs twice.
    """
    receivers, workers = await fleet.start(4, 4)
    subjects = {f"task-{n}" for n in range(20)}

    sent = [(each, subject) for subject in subjects for each in receivers * 3]
    answers = await asyncio.gather(*(each.send(subject) for each, subject in sent))

    told = Counter(
        (answer.json()["id"], answer.status_code) for answer in answers if answer is not None
    )
    ids = {event_id(subject) for subject in subjects}
    assert told == {(id, status): n for id in ids for status, n in ((202, 1), (200, 11))}
    assert sorted(await fleet.stored()) == sorted(ids)

    old = receivers[0]
    loading = [asyncio.ensure_future(send_until_refused(old, f"more-{n}")) for n in range(3)]
    (new,), _ = await fleet.start(1, 1)
    assert await workers[0].end(signal.SIGTERM) == 0
    assert await old.end(signal.SIGTERM) == 0

    statuses = {k: v for each in await asyncio.gather(*loading) for k, v in each.items()}
    assert {*statuses.values()} <= {202, 503, None}
    for subject, status in statuses.items():
        if status != 202:
            assert await new.post(subject) in {200, 202}
    await fleet.all_handled()
    assert fleet.ran() == dict.fromkeys(keys({*subjects, *statuses}, "note", "tell"), 1)
    assert "Traceback" not in fleet.words


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


async def test_behind_a_pooler(fleet: Fleet) -> None:
    """Each transaction goes to another connection of the server, and no process minds."""
    async with pooled(fleet.url) as url:
        more = {"WAVEHOOK_DATABASE": url, "WAVEHOOK_DATABASE_POOLER": "on"}
        receiver = await (await fleet.begin("serve", more=more)).started()
        await (await fleet.begin("worker", more=more)).started("worker.started")
        subjects = {f"task-{n}" for n in range(20)}
        statuses = await asyncio.gather(*(receiver.post(subject) for subject in subjects))
        assert statuses == [202] * 20
        await fleet.all_handled()
        assert fleet.ran() == dict.fromkeys(keys(subjects, "note", "tell"), 1)
        for process in fleet.processes:
            assert await process.end(signal.SIGTERM) == 0
    assert "Traceback" not in fleet.words


async def test_versions_that_migrate_at_once(fleet: Fleet) -> None:
    """F43: the new one wins; an old one makes what it knows before that, or refuses with a word."""
    old = ("-m", "tests.crash.older_version")
    processes = await asyncio.gather(
        *(fleet.begin("migrate", program=program) for program in (old, WAVEHOOK) * 2)
    )
    codes = await asyncio.gather(*(process.ended() for process in processes))
    assert {*codes[1::2]} == {0}
    assert {*codes[::2]} <= {0, 2}
    async with connected(fleet.url) as connection:
        found = await connection.fetch(f"SELECT number FROM {fleet.schema}.migration ORDER BY 1")
    newest = len(found)
    assert [number for (number,) in found] == [*range(1, newest + 1)]

    late = await fleet.begin("serve", program=old)
    assert await late.ended() == 2
    assert f"has schema version {newest}, this program works with {newest - 1}" in late.text

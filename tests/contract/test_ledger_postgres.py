"""What a server adds to the promises: lost connections, other versions, locks, many processes."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from submitter.errors import LedgerMismatch, LedgerUnavailable
from submitter.ledger.base import Entry, Result, State
from submitter.ledger.postgres import PostgresLedger
from submitter.storage import migrations
from tests.support.opening import postgres_ledger
from tests.support.postgres_schemas import connected, fresh_schema
from tests.support.proxy import proxy
from tests.support.submissions import (
    MODEL,
    NOW,
    UNLIMITED,
    accepted,
    intended,
    intent,
    only,
    prediction,
    result,
)

STORED = 30_000


@pytest.fixture
async def place() -> AsyncIterator[tuple[str, str]]:
    """A server's address, and a schema that is not there yet."""
    async with fresh_schema() as (url, schema):
        # Its connections are to be found among all of the server's.
        yield f"{url}?application_name={schema}", schema


@pytest.fixture
async def ledger(place: tuple[str, str]) -> AsyncIterator[PostgresLedger]:
    """An open, empty ledger."""
    async with postgres_ledger(*place) as ledger:
        yield ledger


@asynccontextmanager
async def stranger(place: tuple[str, str]) -> AsyncIterator[Any]:
    """A connection that is not among the schema's own."""
    async with connected(place[0].partition("?")[0]) as other:
        yield other


@asynccontextmanager
async def locked(place: tuple[str, str]) -> AsyncIterator[Any]:
    """A stranger who writes, and does not come to an end."""
    async with stranger(place) as other, other.transaction():
        await other.execute(f'SELECT FROM "{place[1]}".ledger_head FOR UPDATE')
        yield other


async def kill(place: tuple[str, str], only: str = "true") -> int:
    """End a schema's connections; tells how many there were."""
    async with stranger(place) as other:
        found = await other.fetch(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            f"WHERE application_name = $1 AND {only}",
            place[1],
        )
    return len(found)


WAITING = "wait_event_type = 'Lock'"


async def waits_for_lock(place: tuple[str, str]) -> None:
    """Wait until one of a schema's connections waits for a lock."""
    async with asyncio.timeout(30), stranger(place) as other:
        while not await other.fetchval(
            f"SELECT count(*) FROM pg_stat_activity WHERE application_name = $1 AND {WAITING}",
            place[1],
        ):
            await asyncio.sleep(0.01)


async def test_everything_is_there_after_a_restart(
    ledger: PostgresLedger, place: tuple[str, str]
) -> None:
    """Promise 2: another object on the same schema answers the same."""
    await accepted(ledger, "k1", "t1", guessed=True)
    await accepted(ledger, "k2", "t2")
    await ledger.finish([result("t2", delivered=True)], NOW + 5)
    await intended(ledger, "k3")
    await ledger.mark_unknown("k3", "lost", NOW, ask_at=NOW + 1)
    await intended(ledger, "k4")
    await ledger.reject("k4", "no", NOW)
    await ledger.pause(NOW + 60)
    await ledger.upload("d", "u", NOW)
    keys = ["k1", "k2", "k3", "k4"]
    before = await ledger.find(keys)
    await ledger.close()

    async with postgres_ledger(*place) as second:
        assert await second.find(keys) == before
        assert await second.finished(0) == [before["k2"]]
        assert await second.last_place() == 1
        assert await second.uploaded("d", after=0) == "u"
        assert await second.due(NOW + 1, hold=1) != []
        with pytest.raises(AssertionError):
            await intended(second, "k5")


async def test_opened_by_many_at_once(place: tuple[str, str]) -> None:
    """F43: one makes the schema, the others wait; one object opens once."""
    ledgers = [PostgresLedger(place[0], schema=place[1]) for _ in range(4)]
    await asyncio.gather(*(ledger.open() for ledger in ledgers * 2))

    answers = [await ledger.intend(intent(), UNLIMITED, NOW) for ledger in ledgers]

    assert [getattr(answer, "fresh", None) for answer in answers] == [True, False, False, False]
    for ledger in ledgers:
        await ledger.close()


async def test_somebody_else_makes_the_schema_meanwhile(place: tuple[str, str]) -> None:
    """F43: the inbox, which takes another lock, may stand in the same one."""
    ledger = PostgresLedger(place[0], schema=place[1])
    async with stranger(place) as other:
        transaction = other.transaction()
        await transaction.start()
        await other.execute(f'CREATE SCHEMA "{place[1]}"')
        opening = asyncio.ensure_future(ledger.open())
        await waits_for_lock(place)
        await transaction.commit()
    await opening
    await intended(ledger)
    await ledger.close()


async def test_a_schema_that_cannot_be_made(place: tuple[str, str]) -> None:
    """Who may not make one is told so, and works in one that somebody made."""
    url, schema = place
    role = f"{schema}_role"
    async with stranger(place) as other:
        await other.execute(f'CREATE ROLE "{role}"')
        try:
            mine = PostgresLedger(f"{url}&role={role}", schema=schema)
            with pytest.raises(LedgerUnavailable, match="permission denied for database"):
                await mine.open()
            await other.execute(f'CREATE SCHEMA "{schema}" AUTHORIZATION "{role}"')
            await mine.open()
            await intended(mine)
            await mine.close()
        finally:
            await other.execute(f'DROP OWNED BY "{role}"; DROP ROLE "{role}"')


async def test_a_schema_of_any_name(place: tuple[str, str]) -> None:
    """A setting may be anything; it is quoted."""
    url, schema = place
    name = f'{schema[:30]} "{{columns}};é'
    try:
        async with postgres_ledger(url, name) as ledger:
            await accepted(ledger)
            assert len(await ledger.finish([result()], NOW)) == 1
    finally:
        async with stranger(place) as other:
            await other.execute(f"DROP SCHEMA {migrations.postgres_names(name)['schema']} CASCADE")


async def test_a_newer_schema_is_refused(ledger: PostgresLedger, place: tuple[str, str]) -> None:
    """F43: an old version says what to do, names both, and opens nothing."""
    _url, schema = place
    await ledger.close()
    async with stranger(place) as other:
        await other.execute(f'UPDATE "{schema}".ledger_schema SET version = 99')

    with pytest.raises(LedgerMismatch, match=r"version 99, .* with 1: .*newer Wavehook"):
        await ledger.open()
    with pytest.raises(LedgerUnavailable, match="not open"):
        await ledger.last_place()


async def test_a_cancelled_caller_breaks_nobody(place: tuple[str, str]) -> None:
    """What was asked is done all the same; who asked beside it gets an answer."""
    ledger = PostgresLedger(place[0], schema=place[1], max_batch=3)
    await ledger.open()
    asked = [asyncio.ensure_future(intended(ledger, f"k{n}")) for n in range(10)]
    reads = [asyncio.ensure_future(ledger.find([f"k{n}"])) for n in range(10)]
    await asyncio.sleep(0)
    for each in asked[::2] + reads[::2]:
        each.cancel()
    answers = await asyncio.gather(*asked, return_exceptions=True)
    found = await asyncio.gather(*reads, return_exceptions=True)

    assert [isinstance(answer, Entry) for answer in answers] == [False, True] * 5
    assert [isinstance(answer, dict) for answer in found] == [False, True] * 5
    assert len(await ledger.open_entries()) == 10
    await ledger.close()


async def test_a_bad_neighbour_fails_alone(ledger: PostgresLedger) -> None:
    """F20: what cannot be written leaves nothing behind, whoever commits with it."""
    await intended(ledger, "k0")
    long: Any = secrets.token_hex(20_000)
    answers = await asyncio.gather(
        intended(ledger, "k1"),
        ledger.accept("k0", prediction(long), NOW, expected_at=NOW),
        intended(ledger, "k2", input={"x": object()}),
        ledger.upload("d", "u", long),
        ledger.reject("k1", "no", NOW),
        intended(ledger, "k3"),
        return_exceptions=True,
    )

    failed = [isinstance(answer, Exception) for answer in answers]
    assert failed == [False, True, True, True, False, False]
    assert [type(answers[1]), type(answers[3])] == [LedgerUnavailable] * 2
    assert not [answer for answer in answers if long in str(answer)]
    found = await ledger.find(["k0", "k1", "k2", "k3"])
    assert sorted(found) == ["k0", "k1", "k3"]
    assert found["k0"].state is State.INTENDED


async def test_a_group_sees_what_was_done_before_in_it(ledger: PostgresLedger) -> None:
    """Each job stands on those before it, though all are written together."""
    task = prediction("t1", "created")
    answers = await asyncio.gather(
        ledger.intend(intent(), UNLIMITED, NOW),
        ledger.accept("k1", task, NOW, expected_at=NOW + 9),
        ledger.due(NOW + 9, hold=5, keys=["k1"]),
        ledger.postpone("k1", NOW + 20),
        ledger.import_task(task, NOW, expected_at=NOW),
        ledger.reject("k1", "no", NOW),
        ledger.pause(NOW + 60),
        ledger.intend(intent("k2"), UNLIMITED, NOW),
    )

    found = await only(ledger)
    assert (found.state, found.ask_at, found.asks) == (State.ACCEPTED, NOW + 20, 1)
    assert (answers[4], answers[5]) == (found, False)
    assert list(await ledger.find(["k1", "k2", "task:t1"])) == ["k1"]


async def test_texts_that_no_text_can_be(ledger: PostgresLedger) -> None:
    """A zero in a task's id, which PostgreSQL cannot hold, loses no result."""
    await accepted(ledger, "k1", "t\0\ud800")

    (done,) = await ledger.finish([result("t\0\ud800")], NOW)

    assert done.key == "k1"
    assert list(await ledger.find_tasks(["t\0\ud800"])) == ["t??"]


async def test_reads_do_not_wait_for_a_writer(
    ledger: PostgresLedger, place: tuple[str, str]
) -> None:
    """F22: nor does who has nothing to write: a receiver tells of every event it gets."""
    await accepted(ledger)
    (done,) = await ledger.finish([result(delivered=True)], NOW)
    await accepted(ledger, "k2", "t2")
    async with locked(place):
        async with asyncio.timeout(5):
            assert await only(ledger) == done
            assert await ledger.finish([result("t9"), result("t8", "no")], NOW) == []
            assert await ledger.finish([result(delivered=True), result("t1", "k1")], NOW) == []
            assert await ledger.due(NOW, hold=1) == []
        finishing = asyncio.ensure_future(ledger.finish([result("t2")], NOW))
        await waits_for_lock(place)
        assert not finishing.done()
    assert len(await finishing) == 1


async def test_a_lock_that_is_not_given_back(place: tuple[str, str]) -> None:
    """F20: those who asked are told; when it is over, all goes on by itself."""
    async with postgres_ledger(*place, lock_timeout_s=0.05) as ledger:
        async with locked(place):
            answers = await asyncio.gather(
                intended(ledger, "k1"), intended(ledger, "k2"), return_exceptions=True
            )
            assert [type(answer) for answer in answers] == [LedgerUnavailable] * 2
            assert "lock timeout" in str(answers[0])

        assert await ledger.find(["k1", "k2"]) == {}
        await intended(ledger, "k1")


async def test_tables_that_are_gone(ledger: PostgresLedger, place: tuple[str, str]) -> None:
    """F20: reads and writes say so, and work again when it was repaired."""
    _url, schema = place
    await intended(ledger)
    async with stranger(place) as other:
        await other.execute(f'ALTER TABLE "{schema}".ledger_entry RENAME TO ledger_gone')
        with pytest.raises(LedgerUnavailable, match="ledger_entry"):
            await ledger.find(["k1"])
        with pytest.raises(LedgerUnavailable, match="ledger_entry"):
            await ledger.mark_unknown("k1", "lost", NOW, ask_at=NOW)
        await other.execute(f'ALTER TABLE "{schema}".ledger_gone RENAME TO ledger_entry')

    await ledger.mark_unknown("k1", "lost", NOW, ask_at=NOW)
    assert (await only(ledger)).state is State.UNKNOWN


async def test_a_connection_that_is_killed_in_the_middle(
    ledger: PostgresLedger, place: tuple[str, str]
) -> None:
    """F20: what was not committed is done once more, and then is done once."""
    async with locked(place):
        asked = [asyncio.ensure_future(intended(ledger, f"k{n}")) for n in range(3)]
        await waits_for_lock(place)
        assert await kill(place, WAITING) == 1
        await waits_for_lock(place)

    assert [entry.key for entry in await asyncio.gather(*asked)] == ["k0", "k1", "k2"]


async def test_nothing_is_lost_or_doubled_while_connections_are_killed(
    ledger: PostgresLedger, place: tuple[str, str]
) -> None:
    """F20, promise 4: who is told of a failure asks again; places have no gap and no double."""
    count = 40
    await asyncio.gather(*(accepted(ledger, f"k{n}", f"t{n}") for n in range(count)))

    async def finish(n: int) -> None:
        async with asyncio.timeout(60):
            while (await only(ledger, f"k{n}")).state is not State.FINISHED:
                await ledger.finish([result(f"t{n}")], NOW)

    async def stubborn(n: int) -> None:
        while True:
            try:
                return await finish(n)
            except LedgerUnavailable:
                await asyncio.sleep(0.01)

    finishing = [asyncio.ensure_future(stubborn(n)) for n in range(count // 2)]
    for n in range(count // 2, count):
        finishing.append(asyncio.ensure_future(stubborn(n)))
        if n % 4 == 0:
            await kill(place)
    await asyncio.gather(*finishing)

    assert [entry.place for entry in await ledger.finished(0)] == list(range(1, count + 1))


async def test_a_commit_whose_answer_is_lost(place: tuple[str, str]) -> None:
    """Promise 2: whether it was done is not known, so it is not said to be done, nor done again."""
    async with proxy(place[0]) as network, postgres_ledger(network.url, place[1]) as ledger:
        await intended(ledger, "k1")
        network.cut_at = b"COMMIT\0"
        with pytest.raises(LedgerUnavailable):
            await ledger.postpone("k1", NOW)

        async with asyncio.timeout(30):
            while not (await only(ledger)).asks:
                await asyncio.sleep(0.01)
        assert (await only(ledger)).asks == 1


async def test_a_purge_goes_in_small_steps(place: tuple[str, str]) -> None:
    """F42: others write between them."""
    ledger = PostgresLedger(place[0], schema=place[1], max_purge_step=3)
    await ledger.open()
    for n in range(7):
        await ledger.upload(f"d{n}", "u", NOW - 1)
        await ledger.upload(f"e{n}", "u", NOW - 1)
    await asyncio.gather(*(intended(ledger, f"k{n}") for n in range(7)))
    await asyncio.gather(*(ledger.reject(f"k{n}", "no", NOW - 1) for n in range(7)))

    purged, again = await asyncio.gather(
        ledger.purge(NOW), ledger.intend(intent("k0"), UNLIMITED, NOW)
    )

    assert purged == 7
    assert getattr(again, "fresh", None)
    assert list(await ledger.find([f"k{n}" for n in range(7)])) == ["k0"]
    assert (await only(ledger, "k0")).tries == 1
    assert await ledger.uploaded("e6", after=0) is None
    await ledger.close()


async def test_a_result_by_hand_has_no_raw_object(ledger: PostgresLedger) -> None:
    """It comes back as far as the columns tell."""
    await accepted(ledger)
    made = Result(prediction("t1", "failed", error="no"))

    await ledger.finish([made], NOW)

    assert (await only(ledger)).prediction == made.prediction
    assert await ledger.durations(MODEL) == []

"""What a file adds to the promises: failures, restarts, other versions, other files, growth."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from submitter.errors import LedgerUnavailable
from submitter.ledger.base import Entry, State
from submitter.ledger.sqlite import SQL, SQLiteLedger
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
async def ledger(tmp_path: Path) -> AsyncIterator[SQLiteLedger]:
    """An open, empty ledger on a file."""
    ledger = SQLiteLedger(tmp_path / "ledger.db")
    await ledger.open()
    yield ledger
    await ledger.close()


def locked(path: Path) -> sqlite3.Connection:
    """A stranger who holds the write lock."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    return connection


async def test_everything_is_there_after_a_restart(ledger: SQLiteLedger) -> None:
    """Promise 2: another object on the same file answers the same."""
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

    second = SQLiteLedger(ledger.path)
    await second.open()
    assert await second.find(keys) == before
    assert await second.finished(0) == [before["k2"]]
    assert await second.last_place() == 1
    assert await second.uploaded("d", after=0) == "u"
    assert await second.due(NOW + 1, hold=1) != []
    with pytest.raises(AssertionError):
        await intended(second, "k5")
    await second.close()


async def test_opened_by_many_at_once(tmp_path: Path) -> None:
    """F43: one makes the schema, the others wait; one object opens once."""
    ledgers = [SQLiteLedger(tmp_path / "x.db") for _ in range(4)]
    await asyncio.gather(*(ledger.open() for ledger in ledgers * 2))

    answers = [await ledger.intend(intent(), UNLIMITED, NOW) for ledger in ledgers]

    assert [getattr(answer, "fresh", None) for answer in answers] == [True, False, False, False]
    for ledger in ledgers:
        await ledger.close()


async def test_a_cancelled_caller_breaks_nobody(tmp_path: Path) -> None:
    """What was asked is done all the same; who asked beside it gets an answer."""
    ledger = SQLiteLedger(tmp_path / "ledger.db", max_group_size=3)
    await ledger.open()
    asked = [asyncio.ensure_future(intended(ledger, f"k{n}")) for n in range(10)]
    await asyncio.sleep(0)
    for each in asked[::2]:
        each.cancel()
    answers = await asyncio.gather(*asked, return_exceptions=True)

    assert [isinstance(answer, Entry) for answer in answers] == [False, True] * 5
    assert len(await ledger.open_entries()) == 10
    await ledger.close()


async def test_a_bad_neighbour_fails_alone(ledger: SQLiteLedger) -> None:
    """F20: what cannot be written leaves nothing behind, whoever commits with it."""
    answers = await asyncio.gather(
        intended(ledger, "k1"),
        ledger.import_task(prediction("t1"), 2**70, expected_at=NOW),
        intended(ledger, "k2", input={"x": object()}),
        ledger.reject("k1", "no", NOW),
        intended(ledger, "k3"),
        return_exceptions=True,
    )

    found = [isinstance(answer, Exception) for answer in answers]
    assert found == [False, True, True, False, False]
    assert sorted(await ledger.find(["k1", "k2", "k3", "task:t1"])) == ["k1", "k3"]


async def test_reads_do_not_wait_for_a_writer(ledger: SQLiteLedger) -> None:
    """F22: nor does who has nothing to write: a receiver tells of every event it gets."""
    await accepted(ledger)
    (done,) = await ledger.finish([result(delivered=True)], NOW)
    await accepted(ledger, "k2", "t2")
    with closing(locked(ledger.path)) as other:
        async with asyncio.timeout(5):
            assert await only(ledger) == done
            assert await ledger.finish([result("t9"), result("t8", "no")], NOW) == []
            assert await ledger.finish([result(delivered=True), result("t1", "k1")], NOW) == []
            assert await ledger.due(NOW, hold=1) == []
        finishing = asyncio.ensure_future(ledger.finish([result("t2")], NOW))
        await asyncio.wait([finishing], timeout=0.05)
        assert not finishing.done()
        other.execute("ROLLBACK")
    assert len(await finishing) == 1


async def test_a_lock_that_is_not_given_back(tmp_path: Path) -> None:
    """F20: those who asked are told; when it is over, all goes on by itself."""
    ledger = SQLiteLedger(tmp_path / "ledger.db", busy_timeout_s=0.05)
    await ledger.open()
    with closing(locked(ledger.path)) as other:
        answers = await asyncio.gather(
            intended(ledger, "k1"), intended(ledger, "k2"), return_exceptions=True
        )
        assert [type(answer) for answer in answers] == [LedgerUnavailable] * 2
        assert "locked" in str(answers[0])
        other.execute("ROLLBACK")

    assert await ledger.find(["k1", "k2"]) == {}
    await intended(ledger, "k1")
    await ledger.close()


async def test_a_full_disk(ledger: SQLiteLedger) -> None:
    """F20: nothing is half written, and there is room again when there is room."""

    def limit(connection: sqlite3.Connection, pages: list[int]) -> list[None]:
        connection.execute(f"PRAGMA max_page_count = {pages[0]}")
        return [None]

    await ledger._database.write(limit, 1)
    with pytest.raises(LedgerUnavailable, match="full"):
        await intended(ledger, input={"prompt": "x" * 1_000_000})

    assert await ledger.find(["k1"]) == {}
    await intended(ledger, input={"prompt": "x" * 1_000_000})


async def test_a_file_that_was_damaged_meanwhile(ledger: SQLiteLedger) -> None:
    """F20: reads and writes say so, and work again when it was repaired."""
    await intended(ledger)
    with closing(sqlite3.connect(ledger.path)) as other:
        other.execute("ALTER TABLE ledger_entry RENAME TO ledger_gone")
        with pytest.raises(LedgerUnavailable, match="ledger_entry"):
            await ledger.find(["k1"])
        with pytest.raises(LedgerUnavailable, match="ledger_entry"):
            await ledger.mark_unknown("k1", "lost", NOW, ask_at=NOW)
        other.execute("ALTER TABLE ledger_gone RENAME TO ledger_entry")

    await ledger.mark_unknown("k1", "lost", NOW, ask_at=NOW)
    assert (await only(ledger)).state is State.UNKNOWN


async def test_a_file_that_somebody_removed(ledger: SQLiteLedger) -> None:
    """F20: no other one is made in its place, empty and for all to read."""
    await intended(ledger)
    await ledger.close()
    await ledger.open()
    ledger.path.rename(ledger.path.with_suffix(".away"))

    with pytest.raises(LedgerUnavailable):
        await ledger.find(["k1"])
    with pytest.raises(LedgerUnavailable):
        await ledger.pause(NOW)
    assert not ledger.path.exists()


async def test_a_file_that_somebody_wrote_over(ledger: SQLiteLedger) -> None:
    """F20: what is no database any more is said to be none."""
    await ledger.close()
    await ledger.open()
    ledger.path.write_bytes(b"not a database, but long enough to look at" * 50)

    with pytest.raises(LedgerUnavailable, match="not a database"):
        await ledger.find(["k1"])
    with pytest.raises(LedgerUnavailable, match="not a database"):
        await ledger.pause(NOW)


async def test_a_new_file_is_its_owner_s_alone(tmp_path: Path) -> None:
    """F16: inputs hold prompts, so nobody else reads the database or its log."""
    ledger = SQLiteLedger(tmp_path / "x y?#%41.db")
    await ledger.open()
    await intended(ledger)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    await ledger.close()
    assert ledger.path.name in modes
    assert set(modes.values()) == {0o600}


async def test_a_newer_schema_is_refused(ledger: SQLiteLedger) -> None:
    """F43: an old version says what to do, and leaves the file as it is."""
    await ledger.close()
    with closing(sqlite3.connect(ledger.path)) as connection:
        connection.execute("UPDATE ledger_schema SET version = version + 1")
        connection.commit()
    before = ledger.path.read_bytes()

    with pytest.raises(LedgerUnavailable, match="newer Wavehook"):
        await ledger.open()

    assert ledger.path.read_bytes() == before
    with pytest.raises(LedgerUnavailable, match="not open"):
        await ledger.last_place()


@pytest.mark.parametrize("version", [0, 7])
async def test_a_database_of_something_else_is_refused(tmp_path: Path, version: int) -> None:
    """F43: a wrong path must not put our tables among another program's, nor change its file."""
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE song (title TEXT)")
        connection.execute(f"PRAGMA user_version = {version}")
        connection.commit()
    before = path.read_bytes()

    with pytest.raises(LedgerUnavailable, match=r"other\.db: .*something else.*WAVEHOOK_DATABASE"):
        await SQLiteLedger(path).open()

    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"not a database, but long enough to look at" * 50, None])
async def test_a_path_that_cannot_be_a_database(tmp_path: Path, content: bytes | None) -> None:
    """F20: a file of something else, or a folder that is not there, has a clear word."""
    path = tmp_path / "missing" / "ledger.db"
    if content:
        path = tmp_path / "ledger.db"
        path.write_bytes(content)

    with pytest.raises(LedgerUnavailable, match=r"cannot open the ledger .*ledger\.db"):
        await SQLiteLedger(path).open()


@pytest.mark.parametrize("begin", ["BEGIN EXCLUSIVE", "BEGIN"])
async def test_a_new_file_that_another_holds(tmp_path: Path, begin: str) -> None:
    """F22, F43: an open waits for the other's lock, and says so where it is not given back."""
    path = tmp_path / "ledger.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute(begin)
        other.execute("SELECT * FROM sqlite_schema").fetchall()
        with pytest.raises(LedgerUnavailable, match="locked"):
            await SQLiteLedger(path, busy_timeout_s=0.05).open()

        ledger = SQLiteLedger(path)
        opening = asyncio.ensure_future(ledger.open())
        await asyncio.wait([opening], timeout=0.05)
        assert not opening.done()
        other.execute("ROLLBACK")
    await opening
    await intended(ledger)
    await ledger.close()


async def test_an_older_sqlite_has_no_strict_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F43: the schema works without them."""
    monkeypatch.setattr("submitter.storage.migrations.STRICT_SINCE", (99,))
    ledger = SQLiteLedger(tmp_path / "x.db")
    await ledger.open()
    await accepted(ledger)
    await ledger.upload("d", "u", NOW)
    assert len(await ledger.finish([result()], NOW)) == 1
    await ledger.close()
    with closing(sqlite3.connect(ledger.path)) as connection:
        tables = connection.execute("SELECT sql FROM sqlite_schema WHERE type = 'table'").fetchall()
    assert tables
    assert not [sql for (sql,) in tables if "STRICT" in sql]


async def test_a_purge_goes_in_small_steps(ledger: SQLiteLedger) -> None:
    """F42: others write between them."""
    ledger.max_purge_step = 3
    for n in range(7):
        await intended(ledger, f"k{n}")
        await ledger.reject(f"k{n}", "no", NOW - 1)
        await ledger.upload(f"d{n}", "u", NOW - 1)
        await ledger.upload(f"e{n}", "u", NOW - 1)

    assert await ledger.purge(NOW) == 7
    assert await ledger.find([f"k{n}" for n in range(7)]) == {}
    assert await ledger.uploaded("e6", after=0) is None


def fill(connection: sqlite3.Connection) -> None:
    """Tens of thousands of entries, nearly all of them ended and delivered."""
    for n in range(STORED):
        ended = n % 1000
        connection.execute(
            """INSERT INTO ledger_entry (
                 key, model, input, digest, until, state, tries, sent_at, context, webhook, task_id,
                 guessed, accepted_at, expected_at, ask_at, asks, status, ended_at, place,
                 prediction, delivered)
               VALUES (?, ?, '{}', 'd', ?, ?, 1, ?, 'null', 1, ?, 0, ?, ?, ?, 0, ?, ?, ?, '{}', ?)
            """,
            (
                f"k{n}", MODEL, n, "finished" if ended else "accepted", n, f"t{n}", n, n,
                None if ended else n, "completed" if ended else "created", n if ended else None,
                n if ended else 0, n % 1000 != 1,
            ),
        )  # fmt: skip
        connection.execute("INSERT INTO ledger_upload VALUES (?, 'u', ?)", (f"d{n}", n))


QUERIES = {
    "find": "ledger_entry_key (key=?)",
    "find_tasks": "ledger_entry_task (task_id=?)",
    "holders": "ledger_entry_task (task_id=?)",
    "open_entries": "ledger_entry_open",
    "finished": "ledger_entry_place (place>?)",
    "count_open": "ledger_entry_",
    "sent": "ledger_entry_sent (sent_at>? AND sent_at<?)",
    "change": "ledger_entry_key (key=?)",
    "to_finish": "ledger_entry_key (key=?)",
    "due": "ledger_entry_due (ask_at<?)",
    "due_of": "ledger_entry_key (key=?)",
    "undelivered": "ledger_entry_undelivered (ended_at<?)",
    "durations": "ledger_entry_completed (model=?)",
    "overdue": "ledger_entry_expected (expected_at>? AND expected_at<?)",
    "purge_entries": "ledger_entry_ended (ended_at<?)",
}

# Partial indexes of few rows, and parameters, are read from end to end.
SMALL = (
    "ledger_entry_open",
    "ledger_entry_due",
    "ledger_entry_expected",
    "VIRTUAL",
    "(subquery",
    "CONSTANT",
)


async def test_no_cost_grows_with_what_is_stored(ledger: SQLiteLedger) -> None:
    """Every statement finds its rows by an index, with tens of thousands stored: plans say so."""
    values = {
        "keys": '["k1"]', "task_ids": '["t1"]', "task_id": "t1", "limit": 10, "after": 5,
        "now": NOW, "window": 60.0, "nth": 3, "results": json.dumps([["k1", "t1", True]]),
        "before": NOW, "model": MODEL, "until": NOW, "key": "k1", "ask_at": NOW, "digest": "d",
        "state": "accepted", "guessed": 0, "accepted_at": NOW, "expected_at": NOW, "asks": 0,
        "reason": None, "status": None, "ended_at": None, "place": 0, "prediction": None,
        "delivered": 0,
    }  # fmt: skip
    with closing(ledger._database.connect()) as connection:
        connection.execute("BEGIN")
        fill(connection)
        connection.execute("COMMIT")
        for analyzed in (False, True):
            if analyzed:
                connection.execute("ANALYZE")
            for name, index in QUERIES.items():
                sql = SQL[name]
                plan = connection.execute(f"EXPLAIN QUERY PLAN {sql}", values).fetchall()
                steps = [step for *_, step in plan]
                assert any(index in step for step in steps), (name, steps)
                scans = [step for step in steps if step.startswith("SCAN")]
                assert not [s for s in scans if not any(small in s for small in SMALL)], name
                # What is sorted is what was asked for by key.
                sorts = [step for step in steps if "TEMP B-TREE" in step]
                assert not sorts or name in ("find_tasks", "due_of"), (name, steps)

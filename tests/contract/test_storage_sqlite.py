"""The promises of the SQLite engine and of the migrator, which inbox and ledger are built on."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from submitter.storage import migrations
from submitter.storage.errors import StorageMismatch, StorageUnavailable
from submitter.storage.sqlite_writer import SQLiteDatabase

PACKAGES = ("receiver.stores", "submitter.ledger")
NO_FAULT = "PRAGMA query_only = OFF"


class Faulty(SQLiteDatabase):
    """A database whose connections are made to fail, in SQLite's own words."""

    def __init__(self, path: Path, *, busy_timeout_s: float = 0.05) -> None:
        super().__init__(
            path, "receiver.stores", busy_timeout_s=busy_timeout_s, on_connect=self._fail
        )
        self.fault = NO_FAULT

    def _fail(self, connection: sqlite3.Connection) -> None:
        connection.execute(self.fault)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Faulty]:
    """An open database with a table of unique numbers; its writer has not connected yet."""
    database = Faulty(tmp_path / "x.db")
    await database.open()
    with closing(database.connect()) as connection:
        connection.execute("CREATE TABLE number (n INTEGER PRIMARY KEY, body BLOB)")
    yield database
    await database.close()


def insert(connection: sqlite3.Connection, numbers: list[Any]) -> list[int]:
    """Store numbers one by one; each answer is the size of the group."""
    for n in numbers:
        connection.execute("INSERT INTO number VALUES (?, zeroblob(20000))", [n])
    return [len(numbers)] * len(numbers)


def remove(connection: sqlite3.Connection, numbers: list[int]) -> list[None]:
    """Another kind of request."""
    connection.executemany("DELETE FROM number WHERE n = ?", [[n] for n in numbers])
    return [None] * len(numbers)


async def stored(database: SQLiteDatabase) -> list[int]:
    """The numbers that are there."""
    return await database.read(
        lambda connection: [n for (n,) in connection.execute("SELECT n FROM number ORDER BY n")]
    )


async def test_what_waits_together_commits_together(database: Faulty) -> None:
    """Promise 1: one transaction, one call for each kind of request, an answer for each."""
    versions = database.connect()
    (before,) = versions.execute("PRAGMA data_version").fetchone()
    answers = await asyncio.gather(*[database.write(insert, n) for n in range(20)])

    assert answers == [20] * 20
    assert await stored(database) == list(range(20))
    assert versions.execute("PRAGMA data_version").fetchone() == (before + 1,)
    versions.close()


async def test_a_bad_request_fails_alone(database: Faulty) -> None:
    """Promise 2, F20: the others of its group are committed, whatever is wrong with it."""
    await database.write(insert, 3)
    requests = [1, 2**70, 3, "no number", 2]
    answers = await asyncio.gather(
        *[database.write(insert, n) for n in requests],
        return_exceptions=True,
    )

    assert [isinstance(answer, Exception) for answer in answers] == [
        False, True, True, True, False,
    ]  # fmt: skip
    assert isinstance(answers[2], StorageUnavailable)
    assert isinstance(answers[1], OverflowError)
    assert await stored(database) == [1, 2, 3]


async def test_a_lock_is_waited_for_within_its_limit(database: Faulty) -> None:
    """Promises 3 and 4, F20, F22: reads go on, the writes are told, and all works again."""
    with closing(sqlite3.connect(database.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        async with asyncio.timeout(5):
            answers = await asyncio.gather(
                database.write(insert, 1), database.write(insert, 2), return_exceptions=True
            )
            assert await stored(database) == []
        other.execute("ROLLBACK")
    assert [type(answer) for answer in answers] == [StorageUnavailable] * 2
    assert "locked; another process holds the write lock" in str(answers[0])
    assert await database.write(insert, 1) == 1


async def test_a_lock_that_is_given_back_in_time(tmp_path: Path, database: Faulty) -> None:
    """Promise 3, F22: nobody sees a locked database."""
    patient = SQLiteDatabase(database.path, "receiver.stores")
    await patient.open()
    with closing(sqlite3.connect(database.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        writing = patient.write(insert, 1)
        await asyncio.wait([writing], timeout=0.1)
        assert not writing.done()
        other.execute("ROLLBACK")
    assert await writing == 1
    await patient.close()


@pytest.mark.parametrize(
    ("fault", "word", "remedy"),
    [
        ("PRAGMA max_page_count = 1", "full", "free disk space"),
        ("PRAGMA query_only = ON", "readonly", "writable"),
    ],
)
async def test_a_disk_that_takes_nothing(
    database: Faulty, fault: str, word: str, remedy: str
) -> None:
    """Promise 4, F20: told with what to do, nothing is stored, and it recovers by itself."""
    database.fault = fault
    answers = await asyncio.gather(
        database.write(insert, 1), database.write(insert, 2), return_exceptions=True
    )
    assert [type(answer) for answer in answers] == [StorageUnavailable] * 2
    assert word in str(answers[0])
    assert remedy in str(answers[0])
    assert str(database.path) in str(answers[0])
    assert await stored(database) == []

    database.fault = NO_FAULT
    assert await database.write(insert, 1) == 1


async def test_a_file_that_was_removed(tmp_path: Path, database: Faulty) -> None:
    """Promise 5, F52: nothing is acknowledged into a file that nobody will open again."""
    database.path.rename(tmp_path / "away.db")
    with pytest.raises(StorageUnavailable, match="unable to open"):
        await database.write(insert, 1)
    assert not database.path.exists()

    (tmp_path / "away.db").rename(database.path)
    assert await database.write(insert, 1) == 1


async def test_a_reader_that_failed_connects_anew(database: Faulty) -> None:
    """Promise 4, F20: reads say what is wrong, and work again when it is over."""
    await stored(database)
    with closing(database.connect()) as connection:
        connection.execute("ALTER TABLE number RENAME TO gone")
        with pytest.raises(StorageUnavailable, match="number"):
            await stored(database)
        connection.execute("ALTER TABLE gone RENAME TO number")
    assert await stored(database) == []


async def test_a_cancelled_caller_s_write_is_done(database: Faulty) -> None:
    """Promise 6: and those beside it get their answers."""
    first, second = database.write(insert, 1), database.write(insert, 2)
    first.cancel()
    assert await second == 2
    assert await stored(database) == [1, 2]


async def test_close_finishes_what_was_submitted(database: Faulty) -> None:
    """Promise 6, F40, F45: and leaves no thread behind; whoever comes later is told."""
    writes = [database.write(insert, n) for n in range(20)]
    await asyncio.gather(database.close(), database.close())

    assert [await write for write in writes] == [20] * 20
    assert not [thread for thread in threading.enumerate() if "sqlite" in thread.name]
    with pytest.raises(StorageUnavailable, match="not open"):
        database.write(insert, 21)
    with pytest.raises(StorageUnavailable, match="not open"):
        await stored(database)
    await database.open()
    assert await stored(database) == list(range(20))


async def test_a_group_of_several_kinds_is_one_transaction(database: Faulty) -> None:
    """Promise 1: requests of one kind are done together, in the order in which they came."""
    await asyncio.gather(
        database.write(insert, 1), database.write(remove, 1), database.write(insert, 2)
    )
    assert await stored(database) == [2]


def test_used_from_one_event_loop_after_another(tmp_path: Path) -> None:
    """A command runs several loops, one after the other, on one open database."""
    database = SQLiteDatabase(tmp_path / "x.db", "receiver.stores")

    async def begin() -> None:
        await database.open()
        with closing(database.connect()) as connection:
            connection.execute("CREATE TABLE number (n INTEGER PRIMARY KEY, body BLOB)")
        await database.write(insert, 1)

    async def go_on() -> None:
        await database.write(insert, 2)
        assert await stored(database) == [1, 2]
        await database.close()

    asyncio.run(begin())
    asyncio.run(go_on())


@pytest.mark.parametrize("packages", [PACKAGES, PACKAGES[::-1]])
async def test_inbox_and_ledger_share_a_file(tmp_path: Path, packages: tuple[str, str]) -> None:
    """F43: whichever comes first, each migrates its own tables, and only once."""
    path = tmp_path / "x.db"
    for package in packages * 2:
        database = SQLiteDatabase(path, package)
        await database.open()
        await database.close()
    with closing(sqlite3.connect(path)) as connection:
        assert [migrations.pending_sqlite(connection, each, "x") for each in packages] == [[], []]


@pytest.mark.parametrize("package", PACKAGES)
async def test_many_open_a_new_file_at_once(tmp_path: Path, package: str) -> None:
    """F43: one migrates, the others wait."""
    databases = [SQLiteDatabase(tmp_path / "x.db", package) for _ in range(5)]
    await asyncio.gather(*[database.open() for database in databases])
    await asyncio.gather(*[database.close() for database in databases])


@pytest.mark.parametrize("package", PACKAGES)
async def test_a_newer_schema_is_refused(
    tmp_path: Path, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F43: both versions are named, and the file stays as it is."""
    path = tmp_path / "x.db"
    known = migrations.scripts(package, "sqlite")
    newest = known[-1][0]
    with monkeypatch.context() as newer:
        newer.setattr(
            migrations, "scripts", lambda *_: [*known, (newest + 1, "CREATE TABLE later (n);")]
        )
        database = SQLiteDatabase(path, package)
        await database.open()
        await database.close()
    before = path.read_bytes()

    with pytest.raises(StorageMismatch, match="newer Wavehook") as caught:
        await SQLiteDatabase(path, package).open()

    assert (caught.value.found, caught.value.expected) == (newest + 1, newest)
    assert path.read_bytes() == before


@pytest.mark.parametrize("package", PACKAGES)
async def test_another_program_s_file_is_not_changed(tmp_path: Path, package: str) -> None:
    """F43: not even switched to WAL."""
    path = tmp_path / "x.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE song (title TEXT)")
        connection.commit()
    before = path.read_bytes()

    with pytest.raises(StorageMismatch, match=r"x\.db: .*something else.*WAVEHOOK_DATABASE"):
        await SQLiteDatabase(path, package).open()

    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["x.db"]


def test_a_failed_migration_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F43: the transaction is rolled back, also where the connection lives on."""
    monkeypatch.setattr(
        migrations, "scripts", lambda *_: [(1, "CREATE TABLE event (n);\nCREATE NONSENSE;")]
    )
    with closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as connection:
        with pytest.raises(sqlite3.OperationalError, match="NONSENSE"):
            migrations.migrate_sqlite(connection, "receiver.stores", "x.db")
        assert connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,)
        assert not connection.in_transaction

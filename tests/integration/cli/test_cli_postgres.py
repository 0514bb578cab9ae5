"""The commands on PostgreSQL, in this process: what they do there, say, and return."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from receiver.cli import startup
from receiver.config import load
from receiver.database import inbox_exists, open_store, settings_ledger
from receiver.event import DispatchState, Event
from receiver.stores.base import Store
from receiver.stores.postgres import remove_schema
from submitter.ledger.base import Intent, Ledger, Limits, State
from submitter.prediction import Prediction
from tests.docs import pages
from tests.support import needed
from tests.support.command import run
from tests.support.own_postgres import PASSWORD, OwnPostgres, own_postgres
from tests.support.postgres_schemas import connected

pytestmark = pytest.mark.usefixtures("folder")

T = TypeVar("T")
ID = "wavespeed:t1:completed"
HANDLERS = """
from receiver import GiveUp, on

@on()
async def note(event, context):
    if context.attempt == 1:
        raise GiveUp("not yet")
"""


@pytest.fixture
def schema(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The environment names a PostgreSQL, and a schema that is not there."""
    url, name = needed.postgres(), f"test_{os.urandom(8).hex()}"
    monkeypatch.setenv("WAVEHOOK_DATABASE", url)
    monkeypatch.setenv("WAVEHOOK_DATABASE_SCHEMA", name)
    yield name
    asyncio.run(remove_schema(url, name, pooler=False))


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Iterator[OwnPostgres]:
    """The environment names a PostgreSQL of the test's own, which asks for a password."""
    with asyncio.Runner() as runner:
        context = own_postgres()
        server = runner.run(context.__aenter__())
        monkeypatch.setenv("WAVEHOOK_DATABASE", server.url)
        yield server
        runner.run(context.__aexit__(None, None, None))


def lines(*words: str) -> list[dict[str, Any]]:
    result = run(*words, "--json")
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def within(work: Callable[[Store, Ledger], Awaitable[T]]) -> T:
    async def session() -> T:
        settings = load(os.environ, cwd=Path.cwd())
        store, ledger = open_store(settings), settings_ledger(settings)
        await store.open()
        await ledger.open()
        try:
            return await work(store, ledger)
        finally:
            await ledger.close()
            await store.close()

    return asyncio.run(session())


def test_nothing_is_made_by_looking(schema: str) -> None:
    """Whoever looks finds no inbox, and leaves none behind."""
    for words in (["events"], ["show", ID], ["dead", "list"], ["purge", "--yes"]):
        result = run(*words)
        assert result.exit_code == 1
        assert f"there is no inbox in PostgreSQL at {place()}, schema {schema}" in result.stderr
    found = look()
    assert found["database"]["ok"]
    assert found["database"]["found"].endswith("does not exist yet; the first start creates it")
    assert not found["seal keys"]["ok"]
    assert not asyncio.run(inbox_exists(load(os.environ, cwd=Path.cwd())))


def place() -> str:
    return os.environ["WAVEHOOK_DATABASE"].rpartition("@")[2].partition("?")[0]


def test_an_event_from_its_arrival_to_its_end(
    schema: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command that looks into the inbox, or changes it."""
    (folder / "noting.py").write_text(HANDLERS)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("WAVEHOOK_HANDLERS", "noting")
    assert "is up to date" in run("migrate").stdout
    old = time.time() - 40 * 86400

    async def fill(store: Store, ledger: Ledger) -> None:
        first = Event(ID, "wavespeed", "prediction.completed", body=b"{}", received_at=time.time())
        await store.add(first, {"note": ()})
        await store.add(replace(first, id="wavespeed:t2:completed", received_at=old), {})
        await store.add(replace(first, id="wavespeed:t3:completed"), {})
        await ledger.intend(Intent("k", "m", {}, "d", old + 60), Limits(), old)
        await ledger.reject("k", "no", old)

    within(fill)
    assert lines("drain") == [{"ran": 1}]
    [dead] = lines("dead", "list")
    assert (dead["event_id"], dead["error"]) == (ID, "not yet")
    assert lines("dead", "retry", "--all") == [{"event_id": ID, "handler": "note"}]
    assert lines("drain") == [{"ran": 1}]
    [shown] = lines("show", ID)
    assert [attempt["outcome"] for attempt in shown["attempts"]] == ["dead", "done"]
    assert lines("redeliver", ID) == [{"event_id": ID, "handlers": ["note"]}]
    assert lines("events")[-1]["dispatches"] == {"note": "pending"}
    assert lines("drain") == [{"ran": 1}]
    assert lines("purge", "--yes") == [{"payloads": 0, "events": 1, "submissions": 1}]
    assert len(lines("events")) == 2


def test_check_looks_at_the_server(schema: str) -> None:
    """What waits, the version, and the connections left; nothing is brought up to date."""
    run("migrate")
    found = look()["database"]
    assert found["ok"], found
    assert f"schema {schema}: ready; 0 dispatches waiting, 0 dead; version " in found["found"]
    assert "connections free" in found["found"]

    tell(f"DELETE FROM {schema}.migration WHERE number > 1")
    assert "version 1; the next start migrates it to " in look()["database"]["found"]
    tell(f"INSERT INTO {schema}.migration (number) VALUES (99)")
    found = look()["database"]
    assert "has schema version 99, this program works with " in found["found"]
    assert found["todo"] == "it was not changed; name another in WAVEHOOK_DATABASE"


def look() -> dict[str, dict[str, Any]]:
    """What `check` finds, by what it looked at."""
    printed = run("check", "--json").stdout.splitlines()
    return {line["check"]: line for line in map(json.loads, printed)}


def tell(sql: str) -> None:
    async def told() -> None:
        async with connected(os.environ["WAVEHOOK_DATABASE"]) as connection:
            await connection.execute(sql)

    asyncio.run(told())


def test_check_without_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bad input: a server that is away is told with its place, a missing driver with its extra."""
    monkeypatch.setenv("WAVEHOOK_DATABASE", f"postgresql://me:{PASSWORD}@127.0.0.1:1/x")
    pytest.importorskip("asyncpg")
    found = look()["database"]
    assert found["found"].startswith("PostgreSQL at 127.0.0.1:1/x: ")
    assert found["todo"].startswith("make sure that the server runs")
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    found = look()["database"]
    assert "needs asyncpg" in found["found"]
    assert found["todo"] == "pip install 'wavehook[postgres]'"


@pytest.mark.parametrize(("command", "code"), [("worker", 0), ("drain", 1), ("migrate", 1)])
def test_a_signal_while_a_server_is_away(
    command: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F40: who waits for a database is stopped like who has one."""
    pytest.importorskip("asyncpg")
    monkeypatch.setenv("WAVEHOOK_DATABASE", "postgresql://127.0.0.1:1/x")
    monkeypatch.setattr(startup, "logger", Stopping)
    result = run(command)
    assert result.exit_code == code
    assert ("stopped by a signal" in result.stderr) == (code == 1)


class Stopping:
    """A log whose first line brings a signal."""

    def warning(self, event: str, **_: object) -> None:
        assert event == "database.awaited"
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("command", ["migrate", "worker", "drain", "events", "reconcile"])
def test_another_version(schema: str, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """F43: exit 2, and both versions are named."""
    monkeypatch.setenv("WAVESPEED_API_KEY", "any")
    run("migrate")
    tell(f"INSERT INTO {schema}.migration (number) VALUES (99)")
    result = run(command)
    assert result.exit_code == 2
    assert "has schema version 99, this program works with " in result.stderr


@pytest.mark.parametrize("words", [["migrate"], ["wait", "k"], ["purge", "--yes"], ["reconcile"]])
def test_another_version_of_the_ledger(
    schema: str, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """F43: as above."""
    monkeypatch.setenv("WAVESPEED_API_KEY", "any")
    run("migrate")
    tell(f"UPDATE {schema}.ledger_schema SET version = 99")
    result = run(*words)
    assert result.exit_code == 2
    assert "has schema version 99, this program works with " in result.stderr


def test_a_server_that_refuses(own: OwnPostgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bad input: told at once, with what to do, also by `check`; no password is shown."""
    tell(f"CREATE ROLE guest LOGIN PASSWORD '{PASSWORD}'")
    for change, words, todo in (
        ((PASSWORD, f"{PASSWORD}-no"), "password authentication failed", "correct user, password"),
        (("/postgres", "/nothing"), 'database "nothing" does not exist', "create the database"),
        (("//postgres:", "//guest:"), None, "`wavehook migrate`"),
        (("/postgres", "/postgres?pgbouncer=true"), "pgbouncer", "remove the option"),
        (
            ("/postgres", "/postgres?sslmode=sometimes"),
            "cannot be used",
            "with options that PostgreSQL has",
        ),
    ):
        before, _, after = own.url.rpartition(change[0])
        monkeypatch.setenv("WAVEHOOK_DATABASE", f"{before}{change[1]}{after}")
        started = run("worker")
        assert started.exit_code == 1
        assert (words or "permission denied for database") in started.stderr
        assert todo in started.stderr
        assert "database.awaited" not in started.stderr
        found = look()["database"]
        assert (words or "this user may not create it") in found["found"]
        assert todo in found["todo"]
        assert PASSWORD not in started.output + json.dumps(found)


def test_the_host_that_takes_writes(schema: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL with several hosts, as the README writes it: one is away, another one is found."""
    url = os.environ["WAVEHOOK_DATABASE"]
    head, at, tail = url.rpartition("@")
    _, scheme, tail = tail.rpartition("//")
    many = f"{head}{at}{scheme}127.0.0.1:1,{tail}{'&' if '?' in tail else '?'}"
    monkeypatch.setenv("WAVEHOOK_DATABASE", f"{many}target_session_attrs=read-write")
    migrated = run("migrate")
    assert migrated.exit_code == 0, migrated.stderr
    assert "PostgreSQL at 127.0.0.1:1," in migrated.stdout
    assert look()["database"]["ok"]


def test_a_schema_that_was_made_for_a_user(
    own: OwnPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who may make no schema makes the tables in one that is there."""
    tell(f"CREATE ROLE app LOGIN PASSWORD '{PASSWORD}'; CREATE SCHEMA wavehook AUTHORIZATION app")
    monkeypatch.setenv("WAVEHOOK_DATABASE", own.url.replace("//postgres:", "//app:"))
    assert look()["database"]["found"].endswith("does not exist yet; the first start creates it")
    assert run("migrate").exit_code == 0
    assert look()["database"]["ok"]


def test_who_may_not_make_tables_works_with_those_of_another(
    own: OwnPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rights that the README names are enough for everything but `migrate`."""
    run("migrate")
    tell(f"CREATE ROLE app LOGIN PASSWORD '{PASSWORD}'")
    tell(pages.the_block("sql", "GRANT USAGE"))
    monkeypatch.setenv("WAVEHOOK_DATABASE", own.url.replace("//postgres:", "//app:"))

    async def work(store: Store, ledger: Ledger) -> tuple[DispatchState, State]:
        event = Event(ID, "wavespeed", "prediction.completed", body=b"{}")
        await store.add(event, {"note": ()})
        now = time.time()
        await ledger.intend(Intent("k", "m", {}, "d", now + 60), Limits(), now)
        entry = await ledger.accept("k", Prediction("t", "created"), now, expected_at=now)
        await store.purge(before=now - 9, now=now)
        return (await store.dispatches(ID))[0].state, entry.state

    assert within(work) == (DispatchState.PENDING, State.ACCEPTED)
    assert look()["database"]["ok"]

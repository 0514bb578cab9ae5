"""`wavehook reconcile`, `check` and `purge` where submissions are: what they do, say and return."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from receiver.event import Event, Origin
from receiver.stores.base import Store
from receiver.stores.sqlite import SQLiteStore
from submitter.ledger.base import Intent, Ledger, Limits, State
from submitter.ledger.base import Result as Ended
from submitter.ledger.sqlite import SQLiteLedger
from submitter.prediction import Prediction
from tests.support.command import run

T = TypeVar("T")
MODEL = "kwaivgi/kling-v2.1-i2v-standard"
INPUT: dict[str, Any] = {"prompt": "waves"}
AGO = 3000.0


class Vendor:
    """The API's tasks; keeps what it was asked for."""

    def __init__(self) -> None:
        self.tasks: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.status = 200

    def task(self, id: str, status: str = "completed") -> None:
        created = "2026-01-01T00:00:00Z"
        task = {"id": id, "model": MODEL, "status": status, "input": INPUT, "created_at": created}
        self.tasks.append(task | {"outputs": ["https://cdn.example/1.mp4"]})

    async def answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/api/v3/predictions")
        self.asked.append(path)
        if self.status != 200:
            return httpx.Response(self.status, json={"error": "no"})
        if not path:
            page = json.loads(await request.aread())["page"]
            return _ok({"items": self.tasks if page == 1 else [], "total": len(self.tasks)})
        found = [task for task in self.tasks if path == f"/{task['id']}/result"]
        return _ok(found[0]) if found else httpx.Response(404, json={"message": "none"})


def _ok(data: object) -> httpx.Response:
    return httpx.Response(200, json={"code": 200, "data": data})


@pytest.fixture(autouse=True)
def vendor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Vendor:
    """An API, a key for it, and an empty working directory."""
    made = Vendor()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WAVESPEED_API_KEY", "k")
    monkeypatch.setenv("WAVESPEED_BASE_URL", "http://127.0.0.1:9")
    # Over sockets, coverage.py on Python 3.11 loses count of the frames around `asyncio.run`.
    monkeypatch.setattr(
        httpx.AsyncHTTPTransport, "handle_async_request", lambda _, request: made.answer(request)
    )
    return made


def line(*words: str) -> dict[str, Any]:
    result = run("reconcile", "--json", *words)
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def on_disk(work: Callable[[Store, Ledger], Awaitable[T]]) -> T:
    async def session() -> T:
        store, ledger = SQLiteStore("wavehook.db"), SQLiteLedger("wavehook.db")
        await store.open()
        await ledger.open()
        try:
            return await work(store, ledger)
        finally:
            await ledger.close()
            await store.close()

    return asyncio.run(session())


def submitted(key: str, task_id: str | None, *, webhook: bool = True) -> None:
    """A submission of an hour ago; without a task id, its answer was lost."""
    at = time.time() - AGO

    async def write(_: Store, ledger: Ledger) -> None:
        intent = Intent(
            key, MODEL, INPUT, digest=key, until=at + 60, context={"job": key}, webhook=webhook
        )
        await ledger.intend(intent, Limits(), at)
        if task_id is None:
            await ledger.mark_unknown(key, "lost", at + 60, ask_at=at + 65)
        else:
            task = Prediction(task_id, "created", raw={"id": task_id, "status": "created"})
            await ledger.accept(key, task, at, expected_at=at + 300)

    on_disk(write)


def events() -> list[Event]:
    async def read(store: Store, _: Ledger) -> list[Event]:
        return [listed.event for listed in await store.events()]

    return on_disk(read)


def state(key: str) -> State:
    async def read(_: Store, ledger: Ledger) -> State:
        return (await ledger.find([key]))[key].state

    return on_disk(read)


def test_overdue_results_are_brought_to_the_inbox(vendor: Vendor, tmp_path: Path) -> None:
    """F29: with the handlers of the settings, so that a worker runs them."""
    (tmp_path / "wavehook.toml").write_text('[handlers.keep]\nuse = "log"\n')
    submitted("k1", "t1")
    submitted("k2", "t2")
    vendor.task("t1")
    vendor.task("t2", "processing")

    told = line()

    assert told == {
        "dry_run": False,
        "asked": 2,
        "found": 1,
        "settled": 0,
        "rejected": 0,
        "open": 1,
        "lost": [],
        "tasks": ["t1"],
        "error": None,
    }
    (event,) = events()
    assert (event.id, event.origin) == ("wavespeed:t1:completed", Origin.RECONCILE)
    assert event.context == {"job": "k1"}
    assert on_disk(lambda store, _: store.dispatches(event.id))[0].handler == "keep"
    assert (state("k1"), state("k2")) == (State.FINISHED, State.ACCEPTED)


def test_what_is_there_is_not_asked_for_again(vendor: Vendor) -> None:
    """F30: a second run finds nothing, and asks nobody before its time."""
    submitted("k1", "t1")
    submitted("k2", "t2")
    vendor.task("t1")
    vendor.task("t2", "processing")
    line()
    asked = len(vendor.asked)

    told = line()

    assert (told["asked"], told["found"], told["open"]) == (0, 0, 1)
    assert len(vendor.asked) == asked
    assert len(events()) == 1


def test_history_finds_what_others_submitted(vendor: Vendor) -> None:
    """Seven days of the API against the inbox; what has not ended is left alone."""
    on_disk(_nothing)
    vendor.task("t1")
    vendor.task("t2", "failed")
    vendor.task("t3", "processing")

    assert line()["found"] == 0
    told = line("--history")

    assert (told["found"], sorted(told["tasks"])) == (2, ["t1", "t2"])
    assert {event.id for event in events()} == {"wavespeed:t1:completed", "wavespeed:t2:failed"}
    assert line("--history")["found"] == 0


def test_what_cannot_be_told_apart_is_named(vendor: Vendor) -> None:
    """F32: a submission that nobody can settle yet is left open, and a person reads its key."""
    submitted("k1", "t1")
    submitted("k2", None)
    assert line("--dry-run")["lost"] == ["k2"]
    told = run("reconcile").stdout.splitlines()
    assert told[1:] == ["  k2: the response was lost, and its task is not found yet"]


def test_a_dry_run_changes_nothing(vendor: Vendor) -> None:
    """It says what would be done; the API is asked for nothing but its history."""
    submitted("k1", "t1")
    submitted("k2", None)
    submitted("k3", "t3")
    _found_by_a_caller("t3")
    vendor.task("t4")

    told = line("--dry-run", "--history")
    text = run("reconcile", "--dry-run").stdout

    assert (told["dry_run"], told["asked"], told["settled"], told["open"]) == (True, 1, 1, 2)
    assert sorted(told["tasks"]) == ["t3", "t4"]
    assert text.startswith(
        "Nothing was changed. Tasks to look up: 1, lost responses to search for: 1, "
        "results to store: 1"
    )
    assert set(vendor.asked) == {""}
    assert events() == []
    assert (state("k1"), state("k2")) == (State.ACCEPTED, State.UNKNOWN)


def test_what_a_caller_found_at_its_deadline_is_handed_over(vendor: Vendor) -> None:
    """The caller had no inbox; nobody is asked again."""
    submitted("k3", "t3")
    _found_by_a_caller("t3")

    assert line()["found"] == 1
    assert [event.id for event in events()] == ["wavespeed:t3:completed"]
    assert vendor.asked == []


def test_a_person_reads_a_sentence(vendor: Vendor) -> None:
    """What was done, in numbers."""
    submitted("k1", "t1")
    vendor.task("t1")

    assert run("reconcile").stdout == (
        "Results found: 1, tasks looked up: 1, lost responses settled: 0, without a task: 0, "
        "still open: 0.\n"
    )


@pytest.mark.parametrize("words", [(), ("--history",)])
def test_an_api_that_refuses_is_exit_code_1(vendor: Vendor, words: tuple[str, ...]) -> None:
    """What was done is told all the same, and why it ended; no traceback."""
    submitted("k1", "t1")
    vendor.status = 401

    result = run("reconcile", "--json", *words)

    assert result.exit_code == 1
    assert "WAVESPEED_API_KEY" in result.stderr
    assert json.loads(result.stdout)["open"] == 1
    assert "Traceback" not in result.output


def test_an_api_that_refuses_its_history_is_exit_code_1(vendor: Vendor) -> None:
    """With nothing due, the history is the first question."""
    on_disk(_nothing)
    vendor.status = 401

    result = run("reconcile", "--history")

    assert (result.exit_code, "stopped early" in result.stderr) == (1, True)


def test_a_ledger_that_cannot_be_opened_is_exit_code_1(tmp_path: Path) -> None:
    """In words."""
    (tmp_path / "wavehook.db").write_bytes(b"no database at all, and more than a hundred bytes" * 9)

    result = run("reconcile")

    assert (result.exit_code, "Traceback" in result.output) == (1, False)


def test_without_a_database_there_is_nothing_to_reconcile() -> None:
    """In the wrong folder, nothing is made."""
    result = run("reconcile")

    assert (result.exit_code, "there is no database" in result.stderr) == (1, True)
    assert not Path("wavehook.db").exists()


def test_without_a_key_it_is_exit_code_2(monkeypatch: pytest.MonkeyPatch) -> None:
    """F15: told with all other faults of the settings."""
    monkeypatch.delenv("WAVESPEED_API_KEY")
    monkeypatch.setenv("WAVEHOOK_OVERDUE", "soon")

    result = run("reconcile")

    assert result.exit_code == 2
    assert "WAVESPEED_API_KEY: it is not set" in result.stderr
    assert "WAVEHOOK_OVERDUE" in result.stderr


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "on: `serve` asks the API"),
        ({"WAVEHOOK_RECONCILE": "off"}, "off by WAVEHOOK_RECONCILE"),
        ({"WAVEHOOK_DISPATCH": "inline"}, "off with inline dispatch"),
        ({"WAVESPEED_API_KEY": "env:NOTHING"}, ""),
    ],
)
def test_check_says_whether_serve_reconciles(
    environ: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person sees why a lost webhook would stay lost."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)

    assert expected in run("check").stdout


def test_check_says_that_a_key_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one, nobody can be asked."""
    monkeypatch.delenv("WAVESPEED_API_KEY")
    monkeypatch.setenv("WAVEHOOK_WAVESPEED_SECRETS", "whsec_x")

    assert "off: WAVESPEED_API_KEY is not set" in run("check").stdout


def test_purge_removes_old_submissions_too() -> None:
    """F42: those that have ended; what is open stays, and a key that might be paid for again."""
    submitted("k1", "t1")
    submitted("k2", "t2")
    submitted("k3", "t3")
    _found_by_a_caller("t1", at=time.time() - 31 * 86400)
    _found_by_a_caller("t3", at=time.time() - 29 * 86400)

    result = run("purge", "--older-than", "2", "--yes", "--json")

    assert json.loads(result.stdout) == {"payloads": 0, "events": 0, "submissions": 1}
    assert (state("k2"), state("k3")) == (State.ACCEPTED, State.FINISHED)


def _found_by_a_caller(task_id: str, at: float | None = None) -> None:
    raw = {"id": task_id, "status": "completed", "model": MODEL}

    async def finish(_: Store, ledger: Ledger) -> None:
        found = Prediction.parse({**raw})
        assert found is not None
        await ledger.finish([Ended(found)], at or time.time() - 60)

    on_disk(finish)


async def _nothing(_: Store, __: Ledger) -> None:
    pass

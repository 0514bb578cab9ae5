"""The commands, in this process: what they print, and how they end."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from cryptography.fernet import Fernet
from typer.main import get_command
from typer.testing import Result

from receiver.cli import inbox
from receiver.cli.application import application, submit_settings
from receiver.config import REFERENCE
from receiver.errors import SettingsError
from receiver.event import Dead, DispatchState, Done, Event, Outcome, RetryAt
from receiver.stores.base import Store
from receiver.stores.sqlite import SQLiteStore
from tests.support.command import run

pytestmark = pytest.mark.usefixtures("folder")

T = TypeVar("T")
ID = "wavespeed:t1:completed"
SECRET = "whsec_h1dden"


def objects(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def with_store(work: Callable[[Store], Awaitable[T]], path: str = "wavehook.db") -> T:
    async def session() -> T:
        store = SQLiteStore(path)
        await store.open()
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(session())


def event(number: int = 1, **fields: Any) -> Event:
    given = {
        "id": f"wavespeed:t{number}:completed",
        "source": "wavespeed",
        "type": "prediction.completed",
        "subject": f"t{number}",
        "model": "kwaivgi/x",
        "context": {"user": "pr1vate"},
        "body": b'{"id":"t","status":"completed","input":{"prompt":"pr1vate"}}',
        "webhook_id": "m1",
        "occurred_at": 1_700_000_000.0,
        "received_at": 1_700_000_001.5,
    }
    return Event(**{**given, **fields})


def filled(count: int = 1, *, outcome: str = "dead", **fields: Any) -> None:
    """Events whose handler `team` has run, and whose `keep` waits for it."""
    ended: dict[str, Outcome] = {
        "dead": Dead("b0om"),
        "done": Done({"n": 1}),
        "retry": RetryAt(4e9, "later"),
    }

    async def work(store: Store) -> None:
        for number in range(1, count + 1):
            await store.add(event(number, **fields), {"team": (), "keep": ("team",)})
        claims = await store.claim("w", {"team": 100}, 60.0, time.time())
        for claim in claims:
            await store.settle(claim.dispatch, "w", ended[outcome], time.time())

    with_store(work)


def commands(group: Any, *before: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        yield (*before, name), command
        if hasattr(command, "commands"):
            yield from commands(command, *before, name)


ALL = dict(commands(get_command(application())))
THEIRS = {"submit", "batch", "result", "wait", "models", "simulate", "demo"}
OURS = sorted(path for path in ALL if path[0] not in THEIRS)


def test_every_command_of_the_design_is_there() -> None:
    """Scripts depend on these names."""
    names = "demo serve worker drain submit batch result wait models simulate reconcile events "
    names += "show redeliver dead purge migrate check secret"
    assert {path[0] for path in ALL} == set(names.split())
    assert ("dead", "list") in ALL
    assert ("dead", "retry") in ALL


@pytest.mark.parametrize("path", sorted(ALL))
def test_every_command_has_help(path: tuple[str, ...]) -> None:
    """`--help` works everywhere, and names every option."""
    result = run(*path, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.stdout
    assert result.stderr == ""


@pytest.mark.parametrize("path", [p for p in OURS if p != ("dead",)])
def test_our_help_teaches_an_example_and_the_exit_codes(path: tuple[str, ...]) -> None:
    """A person learns from the help how it is called and how it ends."""
    text = ALL[path].help
    assert f"wavehook {' '.join(path)}" in re.sub(r"\s+", " ", text)
    assert "Example:" in text
    assert "Exit codes: 0 " in text


@pytest.mark.parametrize("path", OURS)
def test_a_flag_of_a_setting_is_named_like_its_variable(path: tuple[str, ...]) -> None:
    """Every flag that stands for a setting has that setting's name, and no secret has a flag."""
    by_flag = {row.flag: row for row in REFERENCE}
    for parameter in ALL[path].params:
        for flag in parameter.opts:
            assert not (flag in by_flag and by_flag[flag].secret)
            if "WAVEHOOK_" in (getattr(parameter, "help", None) or "") and flag in by_flag:
                assert by_flag[flag].name in parameter.help
                assert by_flag[flag].field == parameter.name


def test_serve_has_a_flag_for_every_setting_it_reads() -> None:
    """What is no secret can be given on the command line."""
    flags = {flag for parameter in ALL["serve",].params for flag in parameter.opts}
    others = {"--retention-days", "--rate", "--in-flight", "--submit-timeout"}
    wanted = {row.flag for row in REFERENCE if not row.secret} - others
    assert wanted <= flags


def test_version_stands_alone() -> None:
    """`--version` needs no command."""
    result = run("--version")
    assert (result.exit_code, result.stdout.split()[0]) == (0, "wavehook")


def test_no_command_shows_what_there_is() -> None:
    """Without a command, help comes, and the exit code of a usage error."""
    result = run()
    assert result.exit_code == 2
    assert "wavehook demo" in result.output


READING = [
    ("events",),
    ("show", ID),
    ("dead", "list"),
    ("dead", "retry", "--all"),
    ("purge", "--yes"),
]


@pytest.mark.parametrize("words", READING)
def test_reading_makes_no_database(words: tuple[str, ...], folder: Path) -> None:
    """A wrong path is told, with the place that was looked at, and nothing is made there."""
    result = run(*words, "--database", "sqlite:///other/x.db")
    assert result.exit_code == 1
    assert f"there is no database at {folder}/other/x.db" in result.stderr
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [*READING, ("serve",), ("worker",), ("drain",), ("migrate",), ("secret",), ("redeliver", ID)],
)
def test_settings_that_cannot_work_end_with_2_and_all_faults(
    words: tuple[str, ...], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every fault is on standard error, secrets masked (F16), without a traceback."""
    (folder / "bad.toml").write_text("[wavehook]\nport = 'x'\nadmin_token = ''\n")
    monkeypatch.setenv("WAVEHOOK_TYPO", SECRET)
    result = run(*words, "--config", "bad.toml")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert " settings cannot work:\n" in result.stderr
    for part in ("wavehook.port = 'x'", "wavehook.admin_token = ***", "WAVEHOOK_TYPO"):
        assert part in result.stderr
    assert SECRET not in result.output
    assert "Traceback" not in result.output


def test_a_database_of_something_else_is_refused_in_words(folder: Path) -> None:
    """F43: an unexpected file is no traceback."""
    (folder / "wavehook.db").write_bytes(b"not a database" * 100)
    result = run("events")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert "wavehook.db" in result.stderr


def test_events_lists_newest_first_and_keeps_what_is_private() -> None:
    """A page of the inbox, with states; neither prompt nor context in it."""
    filled(3)
    result = run("events", "--limit", "2")
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["SEQ", "RECEIVED", "TYPE", "ID", "HANDLERS"]
    assert [line.split()[3] for line in lines[1:]] == [
        "wavespeed:t3:completed",
        "wavespeed:t2:completed",
    ]
    assert "2023-11-14T22:13:21.500Z" in lines[1]
    assert "team dead" in lines[1]
    assert "pr1vate" not in result.stdout


def test_events_for_a_program_are_json_lines_alone() -> None:
    """`--json` prints one object a line; `--before` and `--type` narrow it."""
    filled(3)
    rows = objects(run("events", "--json"))
    assert [row["subject"] for row in rows] == ["t3", "t2", "t1"]
    assert rows[0]["dispatches"] == {"keep": "pending", "team": "dead"}
    assert rows[0]["occurred_at"] == "2023-11-14T22:13:20.000Z"
    before = str(rows[0]["seq"])
    assert [r["subject"] for r in objects(run("events", "--json", "--before", before))] == [
        "t2",
        "t1",
    ]
    assert objects(run("events", "--json", "--type", "parked")) == []
    assert run("events", "--type", "parked").stdout == "No events.\n"


def test_an_event_without_handlers_is_listed_too() -> None:
    """Stored is stored, also where nothing acts on it."""
    with_store(lambda store: store.add(event(), {}))
    assert run("events").stdout.splitlines()[1].endswith("  -")


def test_show_tells_the_whole_story_without_the_body() -> None:
    """Event, dispatches and attempts; body and context only by `--body` (F16)."""
    filled()
    text = run("show", ID).stdout
    for part in ("subject      t1", "team", "dead", "b0om", "keep"):
        assert part in text
    assert "pr1vate" not in text
    private = run("show", ID, "--body").stdout
    assert private.count("pr1vate") == 2


def test_show_for_a_program_is_one_object() -> None:
    """`--json` has dispatches and attempts inside; the body only when asked for."""
    filled(outcome="done")
    (row,) = objects(run("show", ID, "--json"))
    assert "body" not in row
    assert {d["handler"]: d["state"] for d in row["dispatches"]} == {
        "keep": "pending",
        "team": "done",
    }
    assert [(a["handler"], a["number"], a["outcome"]) for a in row["attempts"]] == [
        ("team", 1, "done")
    ]
    (row,) = objects(run("show", ID, "--json", "--body"))
    assert json.loads(row["body"])["input"] == {"prompt": "pr1vate"}
    assert row["context"] == {"user": "pr1vate"}


def test_show_names_what_a_dispatch_waits_for() -> None:
    """A dispatch that waits says for whom."""
    filled(outcome="retry")
    assert "after team" in run("show", ID).stdout
    (row,) = objects(run("show", ID, "--json"))
    assert {d["handler"]: d["waiting_for"] for d in row["dispatches"]} == {
        "keep": ["team"],
        "team": [],
    }


def test_show_of_a_running_attempt_and_a_body_of_bytes() -> None:
    """An attempt that runs has no end yet; a body that is no text is coded."""

    async def work(store: Store) -> None:
        await store.add(event(body=b"\xff\x1b[2J"), {"team": ()})
        await store.claim("w", {"team": 1}, 60.0, time.time())

    with_store(work)
    text = run("show", ID, "--body").stdout
    assert "running" in text
    assert "\x1b" not in text
    (row,) = objects(run("show", ID, "--json", "--body"))
    assert base64.b64decode(row["body_base64"]) == b"\xff\x1b[2J"


def test_show_survives_a_time_beyond_calendars() -> None:
    """A sender's own time may be anything."""
    with_store(lambda store: store.add(event(occurred_at=1e18), {}))
    assert "occurred_at  -" in run("show", ID).stdout


@pytest.mark.parametrize("words", [("show",), ("redeliver",)])
def test_an_unknown_event_is_told(words: tuple[str, ...]) -> None:
    """An id that is not there ends with 1, and is shown without what steers a terminal (F17)."""
    filled()
    result = run(*words, "no\x1b[31msuch")
    assert result.exit_code == 1
    assert "there is no event no\N{REPLACEMENT CHARACTER}[31msuch" in result.stderr


LOGS = '[handlers.team]\nuse = "log"\n[handlers.other]\nuse = "log"\non = "prediction.failed"\n'


def states() -> dict[str, DispatchState]:
    found = with_store(lambda store: store.dispatches(ID))
    return {dispatch.handler: dispatch.state for dispatch in found}


def test_redeliver_makes_an_event_due_for_all_that_want_it(folder: Path) -> None:
    """Those of today's settings that want it, and nobody else."""
    filled()
    (folder / "wavehook.toml").write_text(LOGS)
    assert run("redeliver", ID).stdout == "Due again for team.\n"
    assert states() == {"team": DispatchState.PENDING, "keep": DispatchState.PENDING}


def test_redeliver_to_one_handler(folder: Path) -> None:
    """A handler that is named gets it, wanted or not."""
    filled()
    (folder / "wavehook.toml").write_text(LOGS)
    rows = objects(run("redeliver", ID, "--handler", "other", "--json"))
    assert rows == [{"event_id": ID, "handlers": ["other"]}]
    assert states()["other"] is DispatchState.PENDING
    result = run("redeliver", ID, "--handler", "nobody")
    assert result.exit_code == 2
    assert "there is no handler nobody; known: team, other" in re.sub(r"\s+", " ", result.stderr)


def test_redeliver_that_would_do_nothing_is_told(folder: Path) -> None:
    """No handler, or nothing left to hand out: exit code 1."""
    filled(outcome="done", body=b"")
    result = run("redeliver", ID)
    assert (result.exit_code, "no handler matches this event" in result.stderr) == (1, True)
    (folder / "wavehook.toml").write_text(LOGS)
    result = run("redeliver", ID)
    assert (result.exit_code, "its body was purged" in result.stderr) == (1, True)


def test_dead_lists_what_was_given_up() -> None:
    """F23: what is dead can be seen."""
    filled(2)
    text = run("dead", "list").stdout
    assert text.count("b0om") == 2
    rows = objects(run("dead", "list", "--json"))
    assert {(row["handler"], row["state"], row["error"]) for row in rows} == {
        ("team", "dead", "b0om")
    }


def test_dead_retry_gives_a_second_chance() -> None:
    """F23: what is dead can be retried by hand: one, all of an event, or all."""
    filled(3)
    assert run("dead", "retry", ID, "team").stdout == "1 dispatch due again\n"
    rows = objects(run("dead", "retry", "wavespeed:t2:completed", "--json"))
    assert rows == [{"event_id": "wavespeed:t2:completed", "handler": "team"}]
    assert run("dead", "retry", "--all").stdout == "1 dispatch due again\n"
    assert run("dead", "retry", "--all").stdout == "0 dispatches due again\n"
    assert run("dead", "list").stdout == "No dead dispatches.\n"
    assert with_store(lambda store: store.next_due(["team"])) is not None


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        ((ID, "keep"), 1, "no such dispatch is dead"),
        (("nothing",), 1, "there is no event nothing; `wavehook events` lists them"),
        ((), 2, "expected either an event's id or --all"),
        ((ID, "--all"), 2, "expected either an event's id or --all"),
    ],
)
def test_dead_retry_of_nothing(words: tuple[str, ...], code: int, expected: str) -> None:
    """What cannot be done is told."""
    filled()
    result = run("dead", "retry", *words)
    assert (result.exit_code, expected in result.stderr) == (code, True)


def test_dead_retry_leaves_what_was_purged(monkeypatch: pytest.MonkeyPatch) -> None:
    """F23, F42: a handler gets no event without a body; all others are found behind those."""
    monkeypatch.setattr(inbox, "DEAD_PAGE_SIZE", 1)
    filled(2, received_at=time.time() - 5 * 86400)

    async def one_each(store: Store) -> None:
        for claim in await store.claim("w", {"keep": 100}, 60.0, time.time()):
            await store.settle(claim.dispatch, "w", Dead("n0"), time.time())
        await store.purge(before=time.time() - 86400, now=time.time())
        await store.add(event(3), {"team": ()})
        (claim,) = await store.claim("w", {"team": 1}, 60.0, time.time() - 9)
        await store.settle(claim.dispatch, "w", Dead("n0"), time.time() - 9)

    with_store(one_each)
    one = run("dead", "retry", ID)
    assert one.exit_code == 1
    assert "its body was purged, so handlers cannot run again" in one.stderr
    everything = run("dead", "retry", "--all", "--json")
    assert objects(everything) == [{"event_id": "wavespeed:t3:completed", "handler": "team"}]
    assert everything.stderr == "4 stay dead: the bodies of their events were purged\n"


def test_show_of_a_parked_event_says_what_that_is() -> None:
    """F13: genuine, kept, wanted by nobody; and the way to a handler."""
    parked = event(1, id="wavespeed:m1:abc", type="parked", subject=None, body=b"[1]")
    with_store(lambda store: store.add(parked, {}))
    shown = run("show", parked.id).stdout
    assert "Parked: the signature is valid, but the body is not what this source sends" in shown
    assert "No handler matched it when it was stored; `wavehook redeliver`" in shown
    assert "HANDLER" not in shown


def test_purge_removes_old_payloads() -> None:
    """F42: what is old and finished goes, by the flag's age."""
    filled(outcome="done", received_at=time.time() - 5 * 86400)
    with_store(lambda store: store.redeliver(ID, {}, 0.0))

    async def finish(store: Store) -> None:
        for claim in await store.claim("w", {"keep": 1}, 60.0, time.time()):
            await store.settle(claim.dispatch, "w", Done(None), time.time())

    with_store(finish)
    assert objects(run("purge", "--yes", "--json")) == [
        {"payloads": 0, "events": 0, "submissions": 0}
    ]
    text = run("purge", "--older-than", "2", "--yes").stdout
    assert text.startswith("1 payload removed. Older than 30 days, removed with their keys: 0")
    assert run("show", ID, "--body").stdout.count("body: none, because it was purged") == 1


def test_purge_asks_first() -> None:
    """Where nobody can be asked, `--yes` is needed."""
    filled()
    result = run("purge")
    assert (result.exit_code, "add --yes" in result.stderr) == (2, True)
    result = run("purge", "--json")
    assert (result.exit_code, "add --yes" in result.stderr) == (2, True)


def test_migrate_makes_the_database(folder: Path) -> None:
    """A deployment's own step; it may run twice."""
    for _ in range(2):
        result = run("migrate")
        assert result.stdout == f"The database {folder}/wavehook.db is up to date.\n"
    assert (folder / "wavehook.db").exists()


def test_drain_runs_what_is_due(folder: Path) -> None:
    """Handlers run once, and the count is told; standard output holds nothing else."""
    (folder / "wavehook.toml").write_text('[handlers.team]\nuse = "log"\nto = "log.jsonl"\n')
    for number in range(1, 4):
        with_store(lambda store, n=number: store.add(event(n), {"team": ()}))  # type: ignore[misc]
    assert run("drain", "--limit", "1").stdout == "1 dispatch run\n"
    assert objects(run("drain", "--deadline", "30s", "--json")) == [{"ran": 2}]
    assert len((folder / "log.jsonl").read_text().splitlines()) == 3


def test_drain_refuses_a_time_that_is_none() -> None:
    """A usage error ends with 2."""
    result = run("drain", "--deadline", "soon")
    assert (result.exit_code, "expected a time" in result.stderr) == (2, True)


def test_secret_makes_secrets_and_keys() -> None:
    """New ones are asked of nobody, and fit where they are meant to go."""
    new = run("secret", "--new").stdout.strip()
    assert new.startswith("whsec_")
    assert len(base64.b64decode(new.removeprefix("whsec_"))) == 32
    Fernet(run("secret", "--seal-key").stdout.strip())
    assert run("secret", "--new", "--seal-key").exit_code == 2


def test_secret_needs_the_key() -> None:
    """Without a key nobody can be asked."""
    result = run("secret")
    assert (result.exit_code, "WAVESPEED_API_KEY: it is not set" in result.stderr) == (2, True)


def test_serve_says_why_it_does_not_start() -> None:
    """F15: without any secret it refuses, with exit code 2."""
    result = run("serve")
    assert result.exit_code == 2
    assert "1 setting cannot work:\n  WAVEHOOK_WAVESPEED_SECRETS: it is not set" in result.stderr


def test_the_submitters_commands_read_the_same_settings(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One set of settings: the file counts for `submit` too; a key file is made by `serve` only."""
    assert submit_settings().seal_keys == ()
    (folder / "wavehook.toml").write_text(
        '[wavespeed]\napi_key = "k"\n[wavehook]\npublic_url = "https://h.example"\n'
    )
    found = submit_settings()
    assert (found.api_key, found.public_url) == ("k", "https://h.example")
    assert (found.seal_keys, (folder / "wavehook.key").exists()) == ((), False)
    monkeypatch.setenv("WAVEHOOK_SEAL_KEYS", "one,two")
    assert submit_settings().seal_keys == ("one", "two")
    monkeypatch.setenv("WAVEHOOK_PORT", "x")
    with pytest.raises(SettingsError):
        submit_settings()
    assert run("result", "t1").exit_code == 2


def test_the_submitters_commands_know_database_limits_and_times(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger lies in the receiver's own file, wherever the command was called."""
    found = submit_settings()
    assert found.database == f"sqlite:///{folder / 'wavehook.db'}"
    assert (found.admin_token, found.rate, found.in_flight) == (None, None, None)
    for name, value in (("RATE", "9"), ("IN_FLIGHT", "2"), ("OVERDUE", "1m"), ("ADMIN_TOKEN", "t")):
        monkeypatch.setenv(f"WAVEHOOK_{name}", value)
    monkeypatch.setenv("WAVEHOOK_SUBMIT_TIMEOUT", "5")
    found = submit_settings()
    assert (found.admin_token, found.rate, found.in_flight) == ("t", 9, 2)
    assert (found.overdue, found.submit_timeout) == (60.0, 5.0)
    assert "'t'" not in repr(found)


def test_ctrl_c_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody who presses Ctrl-C wants a traceback."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    filled()
    monkeypatch.setattr("receiver.cli.inbox.with_store", interrupted)
    result = run("events")
    assert (result.exit_code, result.output) == (130, "")

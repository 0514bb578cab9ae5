"""The submitter's settings, from the environment alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from submitter.errors import BadSettings
from submitter.settings import SubmitSettings, from_environment


def test_none_is_set() -> None:
    """Every setting has a default, but for what only the user knows."""
    assert from_environment({}) == SubmitSettings()
    empty = dict.fromkeys(
        ["WAVESPEED_API_KEY", "WAVEHOOK_DATABASE", "WAVEHOOK_RATE", "WAVEHOOK_OVERDUE"], ""
    )
    given = from_environment(empty)
    assert (given.database, given.rate, given.overdue) == ("sqlite:///wavehook.db", None, 300.0)


def test_all_are_set() -> None:
    """Each is read from its variable."""
    given = from_environment(
        {
            "WAVESPEED_API_KEY": "key",
            "WAVESPEED_BASE_URL": "https://a.example",
            "WAVEHOOK_PUBLIC_URL": "https://b.example",
            "WAVEHOOK_SEAL_KEYS": " one, two ,",
            "WAVEHOOK_DATABASE": "sqlite:////srv/x.db",
            "WAVEHOOK_DATABASE_SCHEMA": "hooks",
            "WAVEHOOK_DATABASE_POOLER": " On",
            "WAVEHOOK_ADMIN_TOKEN": "token",
            "WAVEHOOK_RATE": " 5 ",
            "WAVEHOOK_IN_FLIGHT": "7",
            "WAVEHOOK_OVERDUE": "90",
            "WAVEHOOK_SUBMIT_TIMEOUT": "1m",
        }
    )
    assert given == SubmitSettings(
        api_key="key",
        base_url="https://a.example",
        public_url="https://b.example",
        seal_keys=("one", "two"),
        database="sqlite:////srv/x.db",
        database_schema="hooks",
        database_pooler=True,
        admin_token="token",
        rate=5,
        in_flight=7,
        overdue=90.0,
        submit_timeout=60.0,
    )
    assert given.database_path == Path("/srv/x.db")
    assert given.key_path == Path("/srv/x.key")


def test_the_environment_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is given, the process's own is read, at the call."""
    monkeypatch.setenv("WAVEHOOK_RATE", "3")
    assert from_environment().rate == 3


@pytest.mark.parametrize("name", ["WAVEHOOK_RATE", "WAVEHOOK_IN_FLIGHT"])
@pytest.mark.parametrize("value", ["0", "-1", "1.5", "many", "²", "9" * 10, "5 6"])
def test_counts_that_are_none(name: str, value: str) -> None:
    """A wrong value names its setting and what was expected."""
    with pytest.raises(BadSettings, match="whole number from 1 to 1000000") as caught:
        from_environment({name: value})
    assert caught.value.setting == name


@pytest.mark.parametrize("name", ["WAVEHOOK_OVERDUE", "WAVEHOOK_SUBMIT_TIMEOUT"])
@pytest.mark.parametrize("value", ["0", "-5s", "soon", "nan", "inf", "31d", "1000h", "5 minutes"])
def test_times_that_are_none(name: str, value: str) -> None:
    """As above."""
    with pytest.raises(BadSettings, match="5m") as caught:
        from_environment({name: value})
    assert caught.value.setting == name


@pytest.mark.parametrize(
    ("value", "seconds"), [("500ms", 0.5), ("30s", 30.0), ("5m", 300.0), ("2h", 7200.0), ("1", 1.0)]
)
def test_times(value: str, seconds: float) -> None:
    """Plain seconds, or with a unit."""
    assert from_environment({"WAVEHOOK_OVERDUE": value}).overdue == seconds


def test_a_switch_that_is_none() -> None:
    """As above."""
    with pytest.raises(BadSettings, match="on or off") as caught:
        from_environment({"WAVEHOOK_DATABASE_POOLER": "pgbouncer"})
    assert caught.value.setting == "WAVEHOOK_DATABASE_POOLER"


@pytest.mark.parametrize("url", ["postgresql://host/x", "postgres://a:b@[::1]:5/x"])
def test_no_files_on_postgres(url: str) -> None:
    """There is neither a file of the database nor one of a key."""
    given = from_environment({"WAVEHOOK_DATABASE": url})
    assert (given.database_path, given.key_path) == (None, None)


@pytest.mark.parametrize("database", ["wavehook.db", "mysql://host/x", "sqlite:///", ":///x"])
def test_databases_that_are_none(database: str) -> None:
    """Where the ledger is, must be a file or a PostgreSQL."""
    with pytest.raises(BadSettings, match="sqlite:///PATH") as caught:
        _ = SubmitSettings(database=database).database_path
    assert caught.value.setting == "WAVEHOOK_DATABASE"


def test_secrets_are_not_shown() -> None:
    """F16: neither key nor token nor a database's password is in the repr."""
    keys = SubmitSettings(api_key="SECRET", seal_keys=("SECRET",), admin_token="SECRET")
    shown = repr(replace(keys, database="postgresql://me:SECRET@localhost/x"))
    assert "SECRET" not in shown


def test_all_faults_at_once() -> None:
    """Every faulty setting is named, so that a person corrects them in one go."""
    with pytest.raises(BadSettings) as caught:
        from_environment({"WAVEHOOK_RATE": "0", "WAVEHOOK_DATABASE": "x", "WAVEHOOK_GRACE": "?"})
    assert caught.value.setting == "WAVEHOOK_DATABASE"
    first, second = str(caught.value).splitlines()
    assert first.startswith("WAVEHOOK_DATABASE: expected sqlite:///PATH")
    assert second.startswith("WAVEHOOK_RATE: expected a whole number")

"""`wavehook check`: what is there, what is wrong, and what to do."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import stamina

from tests.support import needed
from tests.support.command import run

pytestmark = pytest.mark.usefixtures("folder")

SECRET = "whsec_fetched"


class Answers(BaseHTTPRequestHandler):
    """The API's webhook secret, and what a receiver or somebody else says at /livez."""

    PATHS: ClassVar = {
        "/api/v3/webhook/secret": (200, b'{"code":200,"data":{"secret":"whsec_fetched"}}'),
        "/ours/livez": (200, b'{"status":"alive"}'),
        "/other/livez": (200, b'{"status":"green"}'),
        "/list/livez": (200, b"[]"),
        "/page/livez": (200, b"<html>"),
    }

    def do_GET(self) -> None:
        status, body = self.PATHS.get(self.path, (404, b"{}"))
        if self.headers["Authorization"] not in (None, "Bearer right"):
            status, body = 401, b"{}"
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def look(code: int, *words: str, **environ: str) -> dict[str, dict[str, Any]]:
    """The findings by what was looked at; of several, those that are wrong."""
    result = run("check", "--json", *words, env=environ)
    assert result.exit_code == code, result.output
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert all(row["ok"] is (row["todo"] is None) for row in rows)
    return {row["check"]: row for row in sorted(rows, key=lambda row: not row["ok"])}


def test_all_is_well(folder: Path, url: str) -> None:
    """With everything in place each line is ok, and the exit code 0; nothing is made."""
    (folder / "wavehook.toml").write_text('[handlers.keep]\nuse = "log"\n')
    found = look(
        0,
        WAVESPEED_API_KEY="right",
        WAVESPEED_BASE_URL=url,
        WAVEHOOK_WAVESPEED_SECRETS=SECRET,
        WAVEHOOK_PUBLIC_URL=f"{url}/ours",
    )
    assert found["settings"]["found"] == f"{folder}/wavehook.toml"
    assert "does not exist yet" in found["database"]["found"]
    assert found["API key"]["ok"]
    assert found["source"]["found"] == "wavespeed: verified with 1 secret"
    assert "reaches a running receiver" in found["public URL"]["found"]
    assert found["handler"]["found"] == "keep: writes to standard output"
    assert [path.name for path in folder.iterdir()] == ["wavehook.toml"]


def test_a_person_reads_lines(folder: Path) -> None:
    """Without --json: a mark, what, and what to do below it."""
    result = run("check")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[0] == "ok     settings    environment and flags only"
    assert lines[2].startswith("WRONG  secret      WAVEHOOK_WAVESPEED_SECRETS: it is not set")
    assert lines[3].lstrip().startswith("-> ")


def test_settings_that_cannot_work() -> None:
    """Faults of the settings end with 2; each is a line, and those of handlers follow."""
    found = look(2, "--handlers", "no_such_module", WAVEHOOK_PORT="x")
    assert found["settings"]["found"].startswith("WAVEHOOK_PORT = 'x'")
    assert "'no_such_module' cannot be imported" in found["handlers"]["found"]


@pytest.mark.parametrize(
    ("database", "expected"),
    [("sqlite:///no/x.db", "its folder does not exist"), ("sqlite:///other.db", "other.db")],
)
def test_a_database_that_cannot_be(database: str, expected: str, folder: Path) -> None:
    """A missing folder, or a file of something else."""
    (folder / "other.db").write_bytes(b"other" * 100)
    found = look(1, "--database", database, WAVEHOOK_WAVESPEED_SECRETS=SECRET)
    assert expected in found["database"]["found"]
    assert not found["database"]["ok"]


def test_a_folder_that_cannot_be_written(folder: Path) -> None:
    """Where the database cannot be made, that is told before the start."""
    needed.linux()
    database = "sqlite:////proc/wavehook.db"
    found = look(1, "--database", database, WAVEHOOK_WAVESPEED_SECRETS=SECRET)
    assert not found["database"]["ok"]


def test_a_database_that_is_there(folder: Path) -> None:
    """What waits and what is dead is counted."""
    run("migrate")
    found = look(0, WAVEHOOK_WAVESPEED_SECRETS=SECRET)
    assert found["database"]["found"].endswith("ready; 0 dispatches waiting, 0 dead")


@pytest.mark.parametrize(
    ("version", "told"), [(99, "made by a newer Wavehook"), (0, "of something else")]
)
def test_a_database_of_somebody_else(version: int, told: str, folder: Path) -> None:
    """F43: what to do is not to look after the disk."""
    with sqlite3.connect(folder / "wavehook.db") as database:
        database.execute("CREATE TABLE x (a)")
        database.execute(f"PRAGMA user_version = {version}")
    database.close()
    found = look(1, WAVEHOOK_WAVESPEED_SECRETS=SECRET)["database"]
    assert told in found["found"]
    assert found["todo"] == "it was not changed; name another in WAVEHOOK_DATABASE"


def test_seal_keys_are_tried(folder: Path) -> None:
    """F33: a key that `serve` would refuse is told; the key file is read, and not made."""
    given = {"WAVEHOOK_WAVESPEED_SECRETS": SECRET}
    assert "the first start creates it" in look(0, **given)["seal keys"]["found"]
    assert list(folder.iterdir()) == []
    wrong = look(1, WAVEHOOK_SEAL_KEYS="bad", **given)["seal keys"]
    assert "is not a Fernet key" in wrong["found"]
    right = look(0, WAVEHOOK_SEAL_KEYS="k" * 43 + "=", **given)["seal keys"]
    assert right["found"] == "1 in WAVEHOOK_SEAL_KEYS"
    (folder / "wavehook.key").write_text("k" * 43 + "=\n")
    assert look(0, **given)["seal keys"]["found"].endswith("wavehook.key: one key")


def test_an_api_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """F20: one cause is told once, with the way to start without the API."""
    monkeypatch.setenv("WAVESPEED_BASE_URL", "http://127.0.0.1:9")
    with stamina.set_testing(True, attempts=2):
        result = run("check", env={"WAVESPEED_API_KEY": "k"})
    assert result.exit_code == 1
    assert result.stdout.count("WRONG") == 1
    assert "the API is not available (ConnectError)" in result.stdout
    assert "with WAVEHOOK_WAVESPEED_SECRETS set, `serve` does not need the API" in result.stdout
    assert result.stderr.splitlines() == [
        "the API is not available (ConnectError); retrying in 0.0 s"
    ]


def test_a_secret_that_is_not_the_accounts(url: str) -> None:
    """F39: a secret that the API does not give is told, with what to do."""
    found = look(
        1,
        WAVESPEED_API_KEY="right",
        WAVESPEED_BASE_URL=url,
        WAVEHOOK_WAVESPEED_SECRETS="whsec_other",
    )
    assert "does not hold the secret" in found["secret"]["found"]
    assert "whsec_other" not in str(found)
    assert SECRET not in str(found)


def test_a_key_that_is_refused(url: str) -> None:
    """The API's refusal is told; the secrets of the settings still count."""
    found = look(
        1, WAVESPEED_API_KEY="wr0ng", WAVESPEED_BASE_URL=url, WAVEHOOK_WAVESPEED_SECRETS=SECRET
    )
    assert "the API key was refused" in found["API key"]["found"]
    assert found["source"]["ok"]
    assert "wr0ng" not in str(found)


def test_the_fetched_secret_is_enough(url: str) -> None:
    """With an API key alone, the source verifies with what the API gives."""
    found = look(0, WAVESPEED_API_KEY="right", WAVESPEED_BASE_URL=url)
    assert found["source"]["found"] == "wavespeed: verified with 1 secret"


def test_a_secret_that_can_be_none(folder: Path) -> None:
    """F15: a secret in the wrong form is told, without showing it."""
    text = '[sources.a]\nuse = "standard"\nsecrets = "#h1dden"\n'
    (folder / "wavehook.toml").write_text(text)
    found = look(1, WAVEHOOK_WAVESPEED_SECRETS=SECRET)
    assert found["secret"]["found"].startswith("sources.a.secrets = ***: expected whsec_")
    assert "h1dden" not in str(found)


def test_an_insecure_source_is_named(folder: Path) -> None:
    """A source that verifies nothing says so."""
    (folder / "wavehook.toml").write_text('[sources.dev]\nuse = "insecure"\n')
    assert "INSECURE" in look(0)["source"]["found"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/other", "answers 200, but not as a receiver does"),
        ("/nothing", "answers 404, but not as a receiver does"),
        ("/page", "no answer from a receiver"),
        ("/list", "no answer from a receiver"),
    ],
)
def test_a_public_url_that_leads_elsewhere(path: str, expected: str, url: str) -> None:
    """What answers there is somebody else."""
    found = look(1, "--public-url", url + path, WAVEHOOK_WAVESPEED_SECRETS=SECRET)
    assert expected in found["public URL"]["found"]


def test_a_public_url_where_nobody_answers() -> None:
    """Nothing listens, or the sender would not go there."""
    found = look(1, "--public-url", "http://127.0.0.1:9", WAVEHOOK_WAVESPEED_SECRETS=SECRET)
    assert "no answer from a receiver (ConnectError)" in found["public URL"]["found"]
    found = look(1, "--public-url", "http://h.example", WAVEHOOK_WAVESPEED_SECRETS=SECRET)
    assert "must be HTTPS" in found["public URL"]["found"]


def test_handlers_that_cannot_be_made(folder: Path) -> None:
    """Each fault is a line of its own."""
    (folder / "wavehook.toml").write_text('[handlers.a]\nuse = "slck"\n')
    found = look(1, "--handlers", "no_such_module", WAVEHOOK_WAVESPEED_SECRETS=SECRET)
    assert not found["handlers"]["ok"]


def test_secret_prints_what_the_api_gives(url: str) -> None:
    """`wavehook secret`: the account's secret alone on standard output, or why not."""
    environ = {"WAVESPEED_API_KEY": "right", "WAVESPEED_BASE_URL": url}
    result = run("secret", env=environ)
    assert (result.exit_code, result.stdout) == (0, f"{SECRET}\n")
    environ["WAVESPEED_API_KEY"] = "wr0ng"
    result = run("secret", env=environ)
    assert result.exit_code == 1
    assert "Error: the API did not give the secret: the API key was refused" in result.stderr
    assert "wr0ng" not in result.output

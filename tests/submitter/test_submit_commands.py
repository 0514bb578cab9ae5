"""The commands `submit` and `result`, against answers of our own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest
import stamina
import typer
from cryptography.fernet import Fernet
from typer.testing import CliRunner

from submitter.cli import register
from submitter.errors import BadSettings
from submitter.seal import Seal
from submitter.settings import SubmitSettings, from_environment

KLING = "kwaivgi/kling-v2.1-i2v-standard"
IMAGE = "https://example.com/first.png"
SEAL_KEY = Fernet.generate_key().decode()
TASK: dict[str, Any] = {"id": "t1", "status": "created"}


class Vendor:
    """Gives its answers in turn, the last for ever; keeps what it was asked."""

    url = "http://127.0.0.1:9"

    def __init__(self) -> None:
        self.answers: list[tuple[int, Any]] = [(200, {"code": 200, "data": TASK})]
        self.asked: list[tuple[str, dict[str, list[str]], Any]] = []

    async def answer(self, request: httpx.Request) -> httpx.Response:
        input = json.loads(request.content) if request.content else None
        query = parse_qs(request.url.query.decode())
        self.asked.append((request.url.path, query, input))
        status, body = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return httpx.Response(status, json=body)


@pytest.fixture
def vendor(monkeypatch: pytest.MonkeyPatch) -> Vendor:
    made = Vendor()
    monkeypatch.setenv("WAVESPEED_API_KEY", "key-SECRET")
    monkeypatch.setenv("WAVESPEED_BASE_URL", made.url)
    # A command makes its own client, so that its requests are caught where they would leave.
    # Over sockets, coverage.py on Python 3.11 loses count of the frames around `asyncio.run`.
    monkeypatch.setattr(
        httpx.AsyncHTTPTransport, "handle_async_request", lambda _, request: made.answer(request)
    )
    return made


def run(*words: str, input: str | bytes | None = None, app: typer.Typer | None = None) -> Any:
    if app is None:
        app = typer.Typer()
        register(app)
    return CliRunner().invoke(app, words, input=input)


def submit(*words: str, input: str | bytes | None = None) -> Any:
    return run("submit", KLING, "-i", "prompt=waves", "-i", f"image={IMAGE}", *words, input=input)


def test_submit_prints_the_id(vendor: Vendor) -> None:
    """A person gets the task's id and nothing else."""
    done = submit("--input", "duration=10", "--input", "guidance_scale=0.7")
    assert (done.exit_code, done.stdout) == (0, "t1\n")
    path, query, input = vendor.asked[0]
    assert path == f"/api/v3/{KLING}"
    assert query == {}
    assert input == {"prompt": "waves", "image": IMAGE, "duration": 10, "guidance_scale": 0.7}


def test_submit_as_json(vendor: Vendor) -> None:
    """A script gets one JSON object in one line."""
    done = submit("--json")
    assert json.loads(done.stdout) == {"task_id": "t1", "model": KLING, "status": "created"}
    assert done.stdout.count("\n") == 1


def test_text_fields_are_not_read_as_json(vendor: Vendor) -> None:
    """A prompt that looks like JSON stays text; other models take JSON where it is."""
    done = run("submit", KLING, "-i", "prompt=5", "-i", f"image={IMAGE}")
    assert done.exit_code == 0
    run("submit", "vendor/other", "-i", "a=5", "-i", "b=x=y", "-i", 'c="5"', "-i", "d=[1,null]")
    assert vendor.asked[0][2]["prompt"] == "5"
    assert vendor.asked[1][2] == {"a": 5, "b": "x=y", "c": "5", "d": [1, None]}


def test_input_from_a_file_or_standard_input(vendor: Vendor, tmp_path: Path) -> None:
    """The input may come as a file or on standard input, and single fields add to it."""
    file = tmp_path / "input.json"
    file.write_text(json.dumps({"prompt": "waves ü", "image": IMAGE}), "utf-8-sig")
    assert run("submit", KLING, "--input-json", str(file), "-i", "duration=5").exit_code == 0
    piped = json.dumps({"prompt": "p", "image": IMAGE})
    assert run("submit", KLING, "--input-json", "-", input=piped).exit_code == 0
    assert vendor.asked[0][2] == {"prompt": "waves ü", "image": IMAGE, "duration": 5}
    assert vendor.asked[1][2]["prompt"] == "p"


def test_the_context_travels_sealed(vendor: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    """With public URL and seal keys from the environment, the context is in the webhook's URL."""
    monkeypatch.setenv("WAVEHOOK_PUBLIC_URL", "https://hooks.example.com")
    monkeypatch.setenv("WAVEHOOK_SEAL_KEYS", f"{SEAL_KEY}, {Fernet.generate_key().decode()} ,")
    assert submit("--context", '{"user": 7}').exit_code == 0
    [url] = vendor.asked[0][1]["webhook"]
    base, _, token = url.rpartition("/")
    sealed = Seal([SEAL_KEY], lifetime=10**10).open(token, 4_000_000_000.0)
    assert base == "https://hooks.example.com/webhooks/wavespeed"
    assert sealed is not None
    assert sealed.context == {"user": 7}


def test_without_webhook(vendor: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    """A webhook may be declined for one task."""
    monkeypatch.setenv("WAVEHOOK_PUBLIC_URL", "https://hooks.example.com")
    assert submit("--no-webhook").exit_code == 0
    assert vendor.asked[0][1] == {}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-i", "duration"), "KEY=VALUE"),
        (("-i", "=5"), "KEY=VALUE"),
        (("-i", "prompt=again"), "given twice"),
        (("--input-json", "missing.json"), "cannot be read"),
        (("--input-json", "-"), "line 1"),
        (("--context", "{SECRET"), "line 1"),
        (("--context", "9" * 5000), "beyond reading"),
        (("--context", "[" * 100_000), "beyond reading"),
        (("--context", "1"), "WAVEHOOK_PUBLIC_URL"),
        (("-i", "duration=7", "-i", "seed=1"), "duration: must be one of 5, 10"),
    ],
    ids=range(10),
)
def test_usage(vendor: Vendor, words: tuple[str, ...], said: str) -> None:
    """F16: what a person got wrong is said without its value, with exit code 2; nothing is sent."""
    done = submit(*words, input="SECRET")
    assert done.exit_code == 2
    # The frame that errors come in wraps their lines.
    assert said in " ".join(done.stderr.replace("│", " ").split())
    assert "SECRET" not in done.stderr
    assert done.stdout == ""
    assert vendor.asked == []


@pytest.mark.parametrize(("content", "said"), [(b"\xff", "UTF-8"), (b"[1]", "JSON object")])
def test_a_file_that_is_no_object(
    vendor: Vendor, tmp_path: Path, content: bytes, said: str
) -> None:
    """F12: a file that is no JSON object is refused with exit code 2."""
    file = tmp_path / "input.json"
    file.write_bytes(content)
    done = run("submit", KLING, "--input-json", str(file))
    assert done.exit_code == 2
    assert said in done.stderr


def test_all_faults_of_the_input_are_shown(vendor: Vendor) -> None:
    """All faults at once, each in a line with its path."""
    done = run("submit", KLING, "-i", "image=first.png", "-i", "duration=7")
    assert done.exit_code == 2
    for path in ("image", "duration", "prompt"):
        assert f"  {path}: " in done.stderr


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, {"message": "bad\x1b[31m key"}, ("WAVESPEED_API_KEY", "The API says: bad [31m key")),
        (500, {"message": "SECRET"}, ("may have been created and billed",)),
        (429, {}, ("too many requests",)),
    ],
)
def test_a_failure_is_exit_code_1(
    vendor: Vendor, status: int, body: Any, said: tuple[str, ...]
) -> None:
    """F17: the API's refusal is told on standard error, printable, with exit code 1."""
    vendor.answers = [(status, body)]
    done = submit("--json")
    assert (done.exit_code, done.stdout) == (1, "")
    assert all(words in done.stderr for words in said)
    assert "SECRET" not in done.stderr
    assert len(vendor.asked) == 1


def test_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """F15: a missing key is named, with exit code 2."""
    done = run("result", "t1")
    assert done.exit_code == 2
    assert "WAVESPEED_API_KEY" in done.stderr


def finished(**fields: Any) -> list[tuple[int, Any]]:
    task = {"id": "t1", "status": "completed", "outputs": ["https://cdn/1.mp4"], **fields}
    return [(200, {"code": 200, "data": task})]


def test_result_for_a_person(vendor: Vendor) -> None:
    """A person gets the status and the outputs, without what would steer the terminal."""
    vendor.answers = finished(outputs=["https://cdn/1.mp4", "https://cdn/\x1b[31m.mp4"])
    done = run("result", "t1")
    assert done.exit_code == 0
    assert done.stdout == "t1 completed\nhttps://cdn/1.mp4\nhttps://cdn/\ufffd[31m.mp4\n"


def test_result_of_a_failed_task(vendor: Vendor) -> None:
    """A task that ended badly is told with its reason, and exit code 1."""
    vendor.answers = finished(status="failed", outputs=[], error="no image", code=1402)
    done = run("result", "t1")
    assert (done.exit_code, done.stdout) == (1, "t1 failed\nno image (code 1402)\n")
    vendor.answers = finished(status="failed", outputs=[], error="no image")
    assert run("result", "t1").stdout == "t1 failed\nno image\n"


def test_result_as_json(vendor: Vendor) -> None:
    """A script gets every field of the prediction in one line."""
    vendor.answers = finished(created_at="2026-03-01T09:12:48.2Z", has_nsfw_contents=None)
    done = run("result", "t1", "--json")
    assert done.stdout.count("\n") == 1
    assert json.loads(done.stdout) == {
        "id": "t1",
        "status": "completed",
        "model": None,
        "outputs": ["https://cdn/1.mp4"],
        "error": None,
        "code": None,
        "has_nsfw_contents": [],
        "created_at": "2026-03-01T09:12:48.200000+00:00",
        "inference_ms": None,
    }


def test_a_task_under_way_is_no_failure(vendor: Vendor) -> None:
    """Exit code 0 says that the question was answered."""
    vendor.answers = finished(status="processing", outputs=[])
    assert (run("result", "t1").exit_code, run("result", "t1").stdout) == (0, "t1 processing\n")


def test_retries_are_told_beside_the_output(vendor: Vendor) -> None:
    """A retry is told on standard error; standard output holds the result alone."""
    vendor.answers = [(503, {}), *finished()]
    done = run("result", "t1", "--json")
    assert json.loads(done.stdout)["status"] == "completed"
    assert "HTTP 503" in done.stderr
    assert "asking again" in done.stderr
    assert stamina.is_testing()


def test_settings_may_come_from_elsewhere(vendor: Vendor) -> None:
    """The receiver's command line hands in its own settings."""
    app = typer.Typer()
    register(app, lambda: SubmitSettings(api_key="k", base_url=vendor.url, seal_keys=("bad",)))
    done = run("result", "t1", app=app)
    assert done.exit_code == 2
    assert "WAVEHOOK_SEAL_KEYS: key 1" in done.stderr

    def broken() -> SubmitSettings:
        raise BadSettings("WAVEHOOK_CONFIG", "cannot be read")

    app = typer.Typer()
    register(app, broken)
    assert run("result", "t1", app=app).exit_code == 2


def test_settings_hide_their_secrets(vendor: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    """F16: neither the API key nor a seal key is in the repr."""
    monkeypatch.setenv("WAVEHOOK_SEAL_KEYS", SEAL_KEY)
    settings = from_environment()
    assert (settings.api_key, settings.seal_keys) == ("key-SECRET", (SEAL_KEY,))
    assert "SECRET" not in repr(settings)
    assert SEAL_KEY not in repr(settings)


@pytest.mark.parametrize("command", ["submit", "result", "simulate"])
def test_help_teaches(command: str) -> None:
    """Every command is there and explains itself."""
    done = run(command, "--help")
    assert done.exit_code == 0
    assert command == "simulate" or "Example: wavehook" in done.stdout

"""The command `submit`, against answers of our own."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
from cryptography.fernet import Fernet

from submitter.cli import register
from submitter.errors import BadSettings
from submitter.settings import SubmitSettings, from_environment
from submitter.submit.context_token import Seal
from tests.support.scripted_vendor import IMAGE, KLING, Vendor, install, run, task

SEAL_KEY = Fernet.generate_key().decode()


@pytest.fixture
def vendor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Vendor:
    return install(monkeypatch, tmp_path)


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
    done = submit("--json", "--key", "k1")
    assert json.loads(done.stdout) == {
        "key": "k1",
        "task_id": "t1",
        "model": KLING,
        "status": "created",
    }
    assert done.stdout.count("\n") == 1


def test_a_model_that_the_api_does_not_know(vendor: Vendor) -> None:
    """A mistyped model ends with 1, and the one that may be meant is named."""
    vendor.answers = [(404, {"code": 404, "message": "Model not found"})]
    done = run("submit", KLING.replace("kling", "klin"), "-i", "prompt=waves")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.splitlines()[1:] == [
        "The API says: Model not found",
        f"`wavehook models` lists the models; did you mean {KLING}?",
    ]


def test_text_fields_are_not_read_as_json(vendor: Vendor) -> None:
    """A prompt that looks like JSON stays text, also by a schema of the live catalogue."""
    done = run("submit", KLING, "-i", "prompt=5", "-i", f"image={IMAGE}")
    assert done.exit_code == 0
    schema = {"type": "object", "properties": {"e": {"type": ["string", "null"]}}}
    api = {"api_schemas": [{"request_schema": schema}]}
    vendor.models = [{"model_id": "vendor/other", "api_schema": api}]
    words = ("a=5", "b=x=y", 'c="5"', "d=[1,null]", "e=7")
    run("submit", "vendor/other", *(part for word in words for part in ("-i", word)))
    assert vendor.asked[0][2]["prompt"] == "5"
    assert vendor.asked[1][2] == {"a": 5, "b": "x=y", "c": "5", "d": [1, None], "e": "7"}


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
        (("-i", "duration"), "FIELD=VALUE"),
        (("-i", "=5"), "FIELD=VALUE"),
        (("-i", "prompt=again"), "given twice"),
        (("--input-json", "missing.json"), "cannot be read"),
        (("--input-json", "-"), "line 1"),
        (("--context", "{SECRET"), "line 1"),
        (("--context", "9" * 5000), "a number is too large"),
        (("--context", "[" * 100_000), "nested too deeply"),
        (("--context", "1"), "WAVEHOOK_PUBLIC_URL"),
        (("--timeout", "5s"), "needs --wait"),
        (("--wait", "--timeout", "soon"), "30s"),
        (("--max-cost", "much"), "USD"),
        (("--max-cost", "nan"), "USD"),
        (("-i", "duration=7", "-i", "seed=1"), "duration: must be one of 5, 10"),
    ],
    ids=range(14),
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
    done = run("submit", KLING, "-i", "image=missing.png", "-i", "duration=7")
    assert done.exit_code == 2
    for path in ("image", "duration", "prompt"):
        assert f"  {path}: " in done.stderr


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, {"message": "bad\x1b[31m key"}, ("WAVESPEED_API_KEY", "The API says: bad [31m key")),
        (500, {"message": "SECRET"}, ("may have been created and billed", "wavehook wait ")),
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


def test_too_many_requests_for_too_long(vendor: Vendor) -> None:
    """A 429 is waited for, but not for ever."""
    vendor.answers = [(429, {})]
    done = submit()
    assert (done.exit_code, done.stdout) == (1, "")
    assert "too many requests" in done.stderr


def test_settings_may_come_from_elsewhere(vendor: Vendor) -> None:
    """The receiver's command line hands in its own settings."""
    app = typer.Typer()
    register(app, lambda: _settings(vendor))
    done = run("submit", KLING, "-i", "prompt=p", "-i", f"image={IMAGE}", app=app)
    assert done.exit_code == 2
    assert "WAVEHOOK_SEAL_KEYS: key 1" in done.stderr

    def broken() -> SubmitSettings:
        raise BadSettings("WAVEHOOK_CONFIG", "cannot be read")

    app = typer.Typer()
    register(app, broken)
    assert run("submit", KLING, app=app).exit_code == 2


def test_settings_hide_their_secrets(vendor: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    """F16: neither the API key nor a seal key is in the repr."""
    monkeypatch.setenv("WAVEHOOK_SEAL_KEYS", SEAL_KEY)
    settings = from_environment()
    assert (settings.api_key, settings.seal_keys) == ("key-SECRET", (SEAL_KEY,))
    assert "SECRET" not in repr(settings)
    assert SEAL_KEY not in repr(settings)


def _settings(vendor: Vendor) -> SubmitSettings:
    url = "https://hooks.example.com"
    return SubmitSettings(api_key="k", base_url=vendor.url, public_url=url, seal_keys=("bad",))


def test_wait_prints_the_outputs(vendor: Vendor) -> None:
    """With --wait a person gets what `result` shows, once it has ended."""
    vendor.answers.append(task())
    done = submit("--wait")
    assert (done.exit_code, done.stdout) == (0, "t1 completed\nhttps://cdn/1.mp4\n")


def test_wait_as_json(vendor: Vendor) -> None:
    """A script gets key and task id, and all that `result` says; exit code 1 for a bad end."""
    vendor.answers.append(task(status="failed", outputs=[], error="no image", code=1402))
    done = submit("--wait", "--json", "--key", "k1")
    said = json.loads(done.stdout)
    assert done.exit_code == 1
    assert {name: said[name] for name in ("key", "task_id", "model", "status", "code")} == {
        "key": "k1",
        "task_id": "t1",
        "model": KLING,
        "status": "failed",
        "code": 1402,
    }


def test_waiting_has_an_end(vendor: Vendor) -> None:
    """A task that has not ended in time is told with the command that waits for it again."""
    vendor.answers.append(task(status="processing", outputs=[]))
    done = submit("--wait", "--timeout", "1s")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "wavehook wait t1" in done.stderr


def test_a_key_pays_once(vendor: Vendor) -> None:
    """The same command with the same key sends nothing again; another input is refused."""
    assert submit("--key", "k1").stdout == submit("--key", "k1").stdout == "t1\n"
    assert len(vendor.asked) == 1
    other = submit("--key", "k1", "-i", "duration=10")
    assert other.exit_code == 2
    assert "key: " in other.stderr


def test_a_key_whose_answer_was_lost(vendor: Vendor) -> None:
    """F32: the second time, a lost answer is still no reason to send again."""
    vendor.answers = [(500, {})]
    assert submit("--key", "k1").exit_code == 1
    done = submit("--key", "k1")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "wavehook wait k1" in done.stderr
    assert len(vendor.asked) == 1


@pytest.mark.parametrize(("cap", "code"), [("0.24", 1), ("0.25", 0)])
def test_a_cap_on_the_cost(vendor: Vendor, cap: str, code: int) -> None:
    """Nothing is sent that would cost more than the cap."""
    price = {"code": 200, "data": {"price": 0.25}}
    vendor.answers.insert(0, (200, price))
    done = submit("--max-cost", cap)
    assert done.exit_code == code
    assert [path for path, _, _ in vendor.asked][1:] == [f"/api/v3/{KLING}"] * (not code)


def test_who_waits_at_a_terminal_is_told(vendor: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    """A video takes minutes: a person reads at once what goes on, a program nothing."""
    vendor.answers.append(task())
    assert submit("--wait", "--key", "k1").stderr == ""
    monkeypatch.setattr("submitter.cli.submit._is_terminal", lambda: True)
    done = submit("--wait", "--key", "k1", "--json")
    assert json.loads(done.stdout)["status"] == "completed"
    assert "`wavehook wait k1` waits again" in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted(
    vendor: Vendor, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    """Ctrl-C and SIGTERM end the wait, not the task: a person is told how to wait again."""

    def stop(request: httpx.Request) -> Any:
        if request.method == "GET":
            signal.raise_signal(number)
        return answer(request)

    answer = vendor.answer
    monkeypatch.setattr(vendor, "answer", stop)
    vendor.answers.append(task(status="processing", outputs=[]))
    # Tests that run in the background may have been told to ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        done = submit("--wait", "--key", "k1")
    finally:
        signal.signal(signal.SIGINT, before)
    assert (done.exit_code, done.stdout) == (code, "")
    assert "wavehook wait k1" in done.stderr


@pytest.mark.parametrize("command", ["submit", "result", "wait", "batch", "models", "simulate"])
def test_help_teaches(command: str) -> None:
    """Every command is there and explains itself, with its exit codes."""
    done = run(command, "--help")
    assert done.exit_code == 0
    assert "Exit codes: 0 " in done.stdout
    assert command == "simulate" or "Example: wavehook" in done.stdout

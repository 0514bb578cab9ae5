"""The command `models`, against answers of our own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import rich.console
import typer
from typer.testing import CliRunner

from submitter.api.models import Model
from submitter.catalogue import builtin, builtin_models
from submitter.catalogue.live import CatalogueFile, CatalogueSnapshot
from submitter.cli import models
from submitter.cli.models import models_command
from submitter.errors import BadSettings
from submitter.settings import SubmitSettings, from_environment

KLING = "kwaivgi/kling-v2.1-i2v-standard"
URL = "http://127.0.0.1:9"

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["images"],
    "x-order-properties": ["images", "size", ["odd"], "gone"],
    "properties": {
        "size": {"enum": ["small", "large"], "type": ["string", "null"], "default": "small"},
        "steps": {"type": "integer", "minimum": 1, "default": 20},
        "images": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 4},
        "odd\x1b[31m": 5,
        "blank": {"description": "Sets\n the \x07 tone."},
    },
}
FLUX = {
    "model_id": "acme/flux",
    "name": "Flux",
    "type": "text-to-image",
    "base_price": 0.01,
    "description": "Paints\x1b[31m pictures.\nQuickly [bold]too[/bold].",
    "api_schema": {"api_schemas": [{"type": "model_run", "request_schema": SCHEMA}]},
}
BARE = {"model_id": "acme/bare"}


class Api:
    """Gives one answer, and counts."""

    def __init__(self) -> None:
        self.status = 200
        self.body: Any = {"code": 200, "data": [FLUX, BARE]}
        self.asked = 0

    async def answer(self, request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/api/v3/models"
        self.asked += 1
        return httpx.Response(self.status, json=self.body)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Api:
    made = Api()
    monkeypatch.setenv("WAVESPEED_API_KEY", "key-SECRET")
    monkeypatch.setenv("WAVESPEED_BASE_URL", URL)
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *_, **__: tmp_path)
    # Where requests would leave: over sockets, coverage.py on Python 3.11 loses count of the
    # frames around `asyncio.run`.
    monkeypatch.setattr(
        httpx.AsyncHTTPTransport, "handle_async_request", lambda _, request: made.answer(request)
    )
    return made


def run(*words: str, settings: Callable[[], SubmitSettings] = from_environment) -> Any:
    app = typer.Typer()
    app.command()(models_command(settings))
    return CliRunner().invoke(app, words)


def test_the_list_is_one_line_a_model(api: Api) -> None:
    """A person sees id, type, price and what each is for, in plain text."""
    done = run()
    assert (done.exit_code, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == 3 + len(builtin_models())
    assert lines[0].split() == ["ID", "TYPE", "FROM", "DESCRIPTION"]
    assert lines[1].split() == ["acme/bare", "-", "-"]
    flux = ["acme/flux", "text-to-image", "0.01", "USD", "Paints\ufffd[31m", "pictures."]
    assert lines[2].split() == flux


def test_the_api_is_asked_once_an_hour(api: Api) -> None:
    """The second command reads what the first one kept."""
    assert run().stdout == run().stdout
    assert api.asked == 1


def test_search(api: Api) -> None:
    """All words must be there, in any case, wherever they stand."""
    done = run("--search", "PICTURES flux")
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["ID", "acme/flux"]
    none = run("--search", "flux kling")
    assert (none.exit_code, none.stdout, none.stderr) == (0, "", "No such models.\n")


def test_the_list_as_json(api: Api) -> None:
    """A script gets one object a line, and nothing else."""
    rows = [json.loads(line) for line in run("--json").stdout.splitlines()]
    assert [row["id"] for row in rows] == ["acme/bare", "acme/flux", *builtin_models()]
    assert rows[1] == {
        "id": "acme/flux",
        "name": "Flux",
        "type": "text-to-image",
        "base_price": 0.01,
        "description": FLUX["description"],
    }
    assert run("--json", "--search", "nothing").stdout == ""


def test_one_model_for_a_person(api: Api) -> None:
    """Each field with its type, whether it is required, its limits, default and meaning."""
    done = run("acme/flux")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "acme/flux",
        "text-to-image, from 0.01 USD a task",
        "Paints\ufffd[31m pictures.",
        "Quickly [bold]too[/bold].",
        "",
        "  images             list of URLs or local files, required, 1 to 4 items",
        "  size               text or null, one of small, large, default small",
        "  steps              whole number, at least 1, default 20",
        "  odd\ufffd[31m           any",
        "  blank              any",
        "                     Sets the \ufffd tone.",
    ]


def test_a_built_in_model_for_a_person(api: Api) -> None:
    """The model of the seed, as it is documented."""
    done = run(KLING)
    assert done.exit_code == 0
    text = " ".join(done.stdout.split())
    for words in (
        "image-to-video, from 0.25 USD a task",
        "prompt text, required, at most 2500 characters",
        "image URL or local file, required",
        "guidance_scale number, 0 to 1, default 0.5",
        "duration whole number, one of 5, 10, default 5 Length of the video in seconds.",
    ):
        assert words in text


def test_a_model_without_a_schema(api: Api) -> None:
    """What the API does not say is not made up."""
    assert run("acme/bare").stdout.splitlines() == [
        "acme/bare",
        "-",
        "",
        "Its fields are not known; the API checks them.",
    ]
    assert json.loads(run("acme/bare", "--json").stdout)["schema"] is None


def test_one_model_as_json(api: Api) -> None:
    """A script gets the whole JSON Schema."""
    assert json.loads(run(KLING, "--json").stdout)["schema"] == builtin(KLING)
    assert json.loads(run("acme/flux", "--json").stdout)["schema"] == SCHEMA


def test_an_unknown_model(api: Api) -> None:
    """Exit code 1, with the name that was nearly written."""
    done = run("kling-v2.1-t2v-mastr\x1b[31m")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == (
        "Error: no model kling-v2.1-t2v-mastr\ufffd[31m is known; "
        "did you mean kwaivgi/kling-v2.1-t2v-master?\n"
    )


def test_without_a_key(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The built-in models are shown, and why there are no others; nobody is asked."""
    monkeypatch.delenv("WAVESPEED_API_KEY")
    done = run("--json")
    note = "Only the built-in models are known: WAVESPEED_API_KEY is not set\n"
    assert (done.exit_code, done.stderr) == (0, note)
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == builtin_models()
    assert run(KLING).stderr == ""
    assert run("acme/flux").stderr.startswith(note)
    assert api.asked == 0


def test_with_a_wrong_key(api: Api) -> None:
    """The built-in models are shown, and that the key was refused."""
    api.status, api.body = 401, {"message": "SECRET"}
    done = run()
    assert done.exit_code == 0
    assert "WAVESPEED_API_KEY" in done.stderr
    assert "SECRET" not in done.stderr
    assert KLING in done.stdout


@pytest.mark.parametrize(("age", "said"), [(60 * 90, "2 h old"), (86400 * 3.2, "3 days old")])
def test_while_the_api_is_away(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age: float, said: str
) -> None:
    """The last list is shown, and how old it is."""
    api.status, api.body = 503, {}
    now = 1_800_000_000.0
    monkeypatch.setattr("time.time", lambda: now)
    models = {"acme/flux": Model("acme/flux", "Flux")}
    CatalogueFile(URL, tmp_path).write(CatalogueSnapshot(models, now - age))
    done = run()
    assert done.exit_code == 0
    assert "acme/flux" in done.stdout
    assert said in done.stderr
    assert "retrying" in done.stderr


@pytest.mark.parametrize(
    ("words", "environment", "said"),
    [
        ((KLING, "--search", "x"), {}, "either NAME or --search"),
        ((), {"WAVESPEED_BASE_URL": "ftp://x"}, "WAVESPEED_BASE_URL"),
        ((), {"WAVEHOOK_RATE": "many"}, "WAVEHOOK_RATE"),
    ],
)
def test_usage(
    api: Api,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    environment: dict[str, str],
    said: str,
) -> None:
    """F16: what cannot be is exit code 2, and says which setting or flag it is."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    done = run(*words)
    assert done.exit_code == 2
    assert said in done.stderr
    assert "SECRET" not in done.stderr
    assert done.stdout == ""


def test_settings_that_cannot_be_read(api: Api) -> None:
    """The receiver's command line hands in its own settings."""

    def broken() -> SubmitSettings:
        raise BadSettings("WAVEHOOK_CONFIG", "cannot be read")

    assert run(settings=broken).exit_code == 2


def test_the_table_of_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a terminal each model has one line as wide as the terminal; markup is text."""
    monkeypatch.setenv("COLUMNS", "60")
    models.table([Model("a/b", "B", "[red]x[/red] " * 50, "t", 0.5), Model("a/c", "C")])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert all(len(line) <= 60 for line in lines)
    assert lines[1].startswith("a/b  t     0.5 USD  [red]x[/red]")


def test_a_terminal_gets_the_table(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks at it gets the table, whoever pipes it gets lines."""
    shown: list[object] = []
    monkeypatch.setattr(rich.console.Console, "print", lambda _, table: shown.append(table))
    monkeypatch.setattr("submitter.cli.models._is_terminal", lambda: True)
    assert run().stdout == ""
    assert len(shown) == 1


def test_help_teaches() -> None:
    """The command explains itself."""
    done = run("--help")
    assert done.exit_code == 0
    assert "Example: wavehook models" in done.stdout

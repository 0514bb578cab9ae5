"""The pages say what is so: settings, commands, statuses, metrics, names and links."""

from __future__ import annotations

import ast
import inspect
import json
import re
import tomllib
from types import ModuleType

import pytest
from pydantic import BaseModel

import receiver
import submitter
from receiver import Context, Prediction, safe_http, testing
from receiver.cli import startup
from receiver.cli.check import CONNECTIONS_OF_SERVE
from receiver.config import REFERENCE, Settings, SourceSettings
from receiver.demo.story import DemoSummary
from receiver.demo.view import summary_text
from receiver.errors import Rejected
from receiver.event import PARKED, DispatchState, Event
from receiver.handlers import command, http, log
from receiver.handlers.archive import handler
from receiver.handlers.chat import apprise, discord, slack, teams, telegram
from receiver.handlers.chat.base import Channel
from receiver.handlers.chat.message import Failure, Output
from receiver.handlers.chat.settings import ChatSettings
from receiver.handlers.chat.template import _SAMPLES, _values
from receiver.handlers.envelope import envelope
from receiver.handlers.settings import DispatchRules
from receiver.sources.base import TIME_WINDOW_S
from receiver.stores.base import KEY_DAYS, Stats
from receiver.stores.postgres import POOL_SIZE
from receiver.telemetry import TelemetryEvent
from receiver.telemetry.metrics import Metrics
from receiver.web.middleware import _TYPES
from submitter import errors, prediction
from submitter.prediction import TERMINAL
from submitter.submit.context_token import MAX_CONTEXT_BYTES
from submitter.units import seconds, size
from tests.docs import demo_picture, pages
from tests.docs.program import COMMANDS, check, flags

ELSEWHERE = {"--check", "--data-raw"}
"""Flags of other programs."""


def test_two_lines_stand_where_they_are_looked_for() -> None:
    """The only `sh` blocks are the main job and the tests, in this order, one line each."""
    found = pages.blocks("sh")
    assert [(block.page, block.heading) for block in found] == [("README.md", "Try it")] * 2
    first, second = (block.text for block in found)
    assert first.count("\n") == second.count("\n") == 1
    assert first.endswith(" && .venv/bin/wavehook demo\n")
    assert second.endswith(" && .venv/bin/pytest\n")


def test_picture_shows_what_the_demo_prints() -> None:
    """The demo's last lines in the terminal picture, letter by letter."""
    shown = demo_picture.lines(demo_picture.PICTURE.read_text("utf-8"))
    took = re.search(r"([\d.]+) s\)", "\n".join(shown))
    assert took is not None
    summary = DemoSummary(10, 13, 3, 1, 2, 10, exactly_once=True, seconds=float(took[1]))
    expected = [line.rstrip() for line in summary_text(summary).splitlines() if line.strip()]
    assert shown[-len(expected) :] == expected
    assert "https://" not in demo_picture.PICTURE.read_text("utf-8").partition("<style>")[2]


def test_settings_are_all_there_with_their_defaults() -> None:
    """Each row is a setting with the text of its help; each setting is a row, in order."""
    rows = [
        (pages.plain(name), meaning.replace("`", ""), pages.plain(default))
        for name, meaning, default in pages.table("setting | meaning | default")
    ]
    assert rows == [(row.name, row.meaning.replace("`", ""), row.default) for row in REFERENCE]


def test_settings_named_in_the_text_exist() -> None:
    """No name of a variable is made up."""
    known = {row.name for row in REFERENCE} | {"WAVEHOOK_EVENT_KEY", "WAVEHOOK_ATTEMPT"}
    assert set(re.findall(r"\b(?:WAVEHOOK|WAVESPEED)_[A-Z_]+\b", pages.TEXT)) <= known


def test_every_command_has_a_row_and_every_row_a_command() -> None:
    """The table of commands, both ways, those below `dead` too."""
    rows = [pages.plain(row[0]) for row in pages.table("command | what it does")]
    assert sorted(rows) == sorted(f"wavehook {name}" for name in COMMANDS)


def test_exit_codes_are_those_of_the_help() -> None:
    """What 1 means stands in the command's own help; `demo` says it in its 0."""
    compared = 0
    for name, _, code in pages.table("command | what it does"):
        words = " ".join(COMMANDS[pages.plain(name).removeprefix("wavehook ")].help.split())
        if "Exit codes:" in words and not name.endswith("demo`"):
            assert f", 1 {code}, 2 " in words
            compared += 1
    assert compared >= 13


def test_every_command_written_anywhere_is_one() -> None:
    """Each `wavehook …` names a command, and only flags that this command has."""
    written = pages.commands()
    assert len(written) > 20
    for words in written:
        if words not in (["COMMAND", "--help"], ["dead"]):
            check(words)


def test_every_flag_written_anywhere_is_one() -> None:
    """Flags in the prose exist on some command."""
    known = set().union(*map(flags, COMMANDS.values())) | ELSEWHERE
    named = {flag for span in pages.spans() for flag in re.findall(r"(?<!\S)--[a-z-]+", span)}
    assert named
    assert named <= known


def test_statuses_are_those_of_the_errors() -> None:
    """F13, F8, F9, F10: the table, the error classes and the problem types agree."""
    rows = {
        int(status): pages.plain(type) for status, _, type in pages.table("status | when | type")
    }
    assert {status for status, type in rows.items() if type == "-"} == {200, 202, 204}
    problems = {status: type for status, type in rows.items() if type != "-"}
    assert problems == {status: f"urn:wavehook:problem:{word}" for status, word in _TYPES.items()}
    raised: list[type[Rejected]] = Rejected.__subclasses__()
    assert {each.status for each in raised} <= problems.keys()
    assert f"more than {TIME_WINDOW_S} s off" in pages.TEXT


def test_metrics_are_those_that_are_counted() -> None:
    """Each name in the README is rendered, and each that is rendered stands in the table."""
    metrics = Metrics()
    text = metrics.render(Stats({}, None), 0.0, overdue=0).decode()
    rendered = {
        name for name in re.findall(r"^# HELP (\S+)", text, re.MULTILINE) if "_created" not in name
    }
    rows = [pages.plain(row[0]) for row in pages.table("metric | labels | meaning")]
    assert sorted(rows) == sorted(rendered)
    named = set(re.findall(r"\bwavehook_[a-z_]+\b", pages.TEXT))
    assert {name for name in named if "playlist" not in name} == rendered  # a module


def test_metrics_have_the_labels_that_are_named() -> None:
    """A query that is written after the table works."""
    metrics = Metrics()
    metrics(TelemetryEvent("delivery.accepted", source="s", type="t", result="new", seconds=0.1))
    metrics(TelemetryEvent("dispatch.settled", handler="h", outcome="retry", seconds=0.1))
    metrics(TelemetryEvent("dispatch.settled", handler="h", outcome="dead", seconds=0.1))
    text = metrics.render(Stats({("h", DispatchState.DEAD): 1}, 0.0), 1.0, overdue=1).decode()
    for name, labels, _ in pages.table("metric | labels | meaning"):
        sample = re.search(rf"^{pages.plain(name)}(?:_count)?(?:{{(.*)}})? ", text, re.MULTILINE)
        assert sample is not None, name
        found = re.findall(r"(\w+)=", sample[1] or "")
        assert sorted(labels.split(", ")) == (sorted(found) or ["-"])


def settings_of(module: ModuleType) -> type[BaseModel]:
    """The model of a handler's section: the class of its module that ends in Settings."""
    [found] = [
        value
        for name, value in vars(module).items()
        if name.endswith("Settings")
        and isinstance(value, type)
        and issubclass(value, BaseModel)
        and value.__module__ == module.__name__
    ]
    return found


def words(default: object) -> str:
    if default is None:
        return "no limit"
    if isinstance(default, float):
        return f"{default:g}s"
    return (", ".join(map(str, default)) or "-") if isinstance(default, tuple) else str(default)


def test_rules_of_handlers_are_all_there_with_their_defaults() -> None:
    """Each key that every handler has, and its default."""
    rows = {pages.plain(key): default for key, _, default in pages.table("key | meaning")}
    fields = DispatchRules.model_fields
    assert list(rows) == list(fields)
    retry = DispatchRules().retry
    attempts, base, cap = re.findall(r"`(\w+)`", rows.pop("retry"))
    assert (int(attempts), seconds(base), seconds(cap)) == (retry.attempts, retry.base, retry.cap)
    for key, default in rows.items():
        assert pages.plain(default) == words(fields[key].default)


@pytest.mark.parametrize(("module", "start"), [(log, "log"), (http, "http"), (command, "command")])
def test_settings_of_the_built_in_handlers_are_named(module: ModuleType, start: str) -> None:
    """Every setting of a built-in handler stands in its paragraph."""
    paragraph = pages.the_line(f"**`{start}`**")
    for name in settings_of(module).model_fields:
        assert re.search(rf"`{name}\b", paragraph), name


CHAT = (slack, discord, teams, telegram, apprise)


def test_settings_of_the_chat_handlers_are_named() -> None:
    """Every setting of one has its row, and each row's names are settings."""
    rows = {cell: default for cell, _, default in pages.table("chat setting | meaning")}
    named = {name for cell in rows for name in re.findall(r"`(\w+)`", cell)}
    models = [settings_of(module) for module in CHAT]
    assert named == {name for model in models for name in model.model_fields}
    common = ChatSettings()
    assert rows["`user_from`, `cost_from`"] == f"`{common.user_from}`, `{common.cost_from}`"
    assert pages.plain(rows["`prompt`"]) == str(common.prompt)
    uploads = [
        model.model_fields["upload"].default for model in models if "upload" in model.model_fields
    ]
    assert list(map(size, re.findall(r"`(\w+)`", rows["`upload`"]))) == uploads
    assert f"`timeout` is `{Channel.rules['timeout']}` unless set" in pages.TEXT


def test_what_a_template_can_name_is_told() -> None:
    """The sentence that lists it, and the fields of what has fields."""
    line = pages.the_line("A template is Jinja")
    told = set(re.findall(r"`(\w+)`", line.partition("These are escaped")[0]))
    values = {name for sample in _SAMPLES for name in _values(*sample)}
    shown = values | {*Output.__dataclass_fields__, *Failure.__dataclass_fields__}
    assert told == shown - {"source"}


def test_settings_of_archive_are_all_there_with_their_defaults() -> None:
    """Each row is a setting, each setting a row, in the same order; and the rules of its own."""
    rows = {
        pages.plain(key): pages.plain(default)
        for key, _, default in pages.table("of `archive` | meaning")
    }
    fields = settings_of(handler).model_fields
    assert list(rows) == list(fields)
    assert rows.pop("to") == rows.pop("options") == "-"
    for key, default in rows.items():
        usual = fields[key].default
        if key in ("max_size", "expires"):
            read = {"max_size": size, "expires": seconds}[key]
            assert read(default) == usual
        else:
            assert default == (words(usual) if usual else "-")
    rules = DispatchRules.model_validate(handler.Archive.rules)
    line = pages.the_line("Unless the section says")
    on, timeout, concurrency, retry = re.findall(r"is `([^`]+)`", line)
    attempts, base, cap = re.findall(r"= \"?(\w+)", retry)
    assert (on, seconds(timeout), int(concurrency)) == (*rules.on, rules.timeout, rules.concurrency)
    assert (int(attempts), seconds(base), seconds(cap)) == (1000, rules.retry.base, rules.retry.cap)
    assert rules.retry.attempts == int(attempts)


@pytest.mark.parametrize("module", [http, command, handler])
def test_outcomes_of_the_built_in_handlers_are_theirs(module: ModuleType) -> None:
    """F27: what follows an answer or an exit status is what the handler's own docstring says."""
    rows = [line for line in str(module.__doc__).splitlines() if line.startswith("|")]
    assert len(rows) > 4
    assert "\n".join(rows) in pages.TEXT


def test_settings_of_sources_are_shown() -> None:
    """Every key and every dialect of a source, `wavespeed` left out, which needs no section."""
    shown = "\n".join(block.text for block in pages.blocks("toml", "Other sources"))
    for key in SourceSettings.model_fields:
        assert re.search(rf"^{key} = ", shown, re.MULTILINE), key
    for use in ("standard", "header_hmac", "insecure"):
        assert f'use = "{use}"' in shown


def test_types_of_events_are_those_that_occur() -> None:
    """Every terminal status has its type in the table, and so has what is parked."""
    cells = " ".join(row[0] for row in pages.table("type | when"))
    for status in TERMINAL:
        assert f"`prediction.{status}`" in cells
    assert f"`{PARKED}`" in cells


def test_envelope_has_the_shape_that_is_shown() -> None:
    """The JSON that `http` and `command` hand out, key by key."""
    [shown] = [json.loads(block.text) for block in pages.blocks("json", "log, http, command")]
    body = json.dumps(shown["data"]["prediction"]).encode()
    made = envelope(Event("id", "wavespeed", shown["type"], body=body))
    data = made["data"]
    assert isinstance(data, dict)
    assert list(made) == list(shown)
    assert list(data) == list(shown["data"])


def test_errors_of_submit_are_all_there() -> None:
    """What the client raises on a submit: each class has a row, and each row is a class."""
    cells = " ".join(row[0] for row in pages.table("raised | what it means"))
    named = set(re.findall(r"`(\w+)`", cells))
    known = {
        name
        for name, value in (vars(errors) | vars(prediction)).items()
        if isinstance(value, type) and issubclass(value, errors.SubmitterError)
    }
    assert named == known - {"SubmitterError"}
    assert named <= set(submitter.__all__)


def test_numbers_in_the_text_are_those_of_the_program() -> None:
    """Limits that a reader may rely on."""
    assert f"up to {MAX_CONTEXT_BYTES} bytes" in pages.TEXT
    assert f"for at least {KEY_DAYS} days" in pages.TEXT
    assert f"Standard output up to {command.MAX_OUTPUT_BYTES // 1024} KiB" in pages.TEXT
    assert f"up to {CONNECTIONS_OF_SERVE} for a `serve`" in pages.TEXT
    assert CONNECTIONS_OF_SERVE == POOL_SIZE + 3
    assert f"every second for {startup.OPEN_TIMEOUT_S:g} s" in pages.TEXT
    default = next(row.default for row in REFERENCE if row.name == "WAVEHOOK_MAX_BODY")
    assert size(default) == Settings().max_body


def test_names_of_log_events_are_written_somewhere() -> None:
    """A line that a person is told to look for exists."""
    sources = "".join(path.read_text() for path in (pages.ROOT / "receiver").rglob("*.py"))
    kinds = "request|dispatch|dispatcher|store|delivery|handler|server|worker|reconcile"
    named = {span for span in pages.spans() if re.fullmatch(rf"({kinds})\.(?!py$)[a-z]+", span)}
    assert len(named) >= 5
    for name in named:
        assert f'"{name}"' in sources, name


def requirement(text: str) -> str:
    found = re.match(r"[A-Za-z0-9-]+", text)
    assert found is not None
    return found[0]


def test_dependencies_have_a_reason_each() -> None:
    """What pyproject.toml asks for, extras included, and nothing else."""
    project = tomllib.loads((pages.ROOT / "pyproject.toml").read_text())["project"]
    every = [project["dependencies"], *project["optional-dependencies"].values()]
    asked = {requirement(text) for group in every for text in group} - {"wavehook"}
    rows = pages.table("package | why")
    named = [name for row in rows for name in row[0].split(", ")]
    assert sorted(named) == sorted(asked)
    assert all(row[1] for row in rows)
    for extra in project["optional-dependencies"]:
        assert f"extra `{extra}`" in pages.TEXT


@pytest.mark.parametrize("page", pages.ALL.values(), ids=pages.ALL)
def test_links_lead_somewhere(page: pages.Page) -> None:
    """Paths are files, anchors are headings of their page, and all others are HTTPS."""
    for target in page.links():
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (pages.ROOT / page.path).parent / path if path else pages.ROOT / page.path
        assert file.is_file(), target
        if anchor:
            other = pages.ALL[str(file.resolve().relative_to(pages.ROOT))]
            assert anchor in other.anchors(), target


LISTED = ("README.md", "receiver/README.md", "receiver/handlers/README.md", "submitter/README.md")


@pytest.mark.parametrize("path", [*LISTED, "deploy/README.md"])
def test_every_chapter_is_in_the_list_of_chapters(path: str) -> None:
    """The line of links at the top leaves none out."""
    page = pages.PAGES[path]
    chapters = re.findall(r"^## (.+)$", page.prose(), re.MULTILINE)
    listed = next(line for line in page.text.splitlines() if line.startswith("["))
    assert re.findall(r"\(#([^)]+)\)", listed) == [pages.slug(chapter) for chapter in chapters]


def test_every_page_is_in_the_list_of_pages() -> None:
    """The README leads to every page but those of single targets, which deploy's page lists."""
    linked = set(pages.MAIN.links())
    deploy = {f"deploy/{target}" for target in pages.PAGES["deploy/README.md"].links()}
    assert set(pages.ALL) - {"README.md"} <= linked | deploy


@pytest.mark.parametrize("path", ["receiver", "submitter"])
def test_folders_that_are_named_exist(path: str) -> None:
    """The map of a package: its folders and modules, each of them, and where to begin."""
    heading = {"receiver": "Architecture", "submitter": "Where to read"}[path]
    text = (
        pages.PAGES[f"{path}/README.md"].text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    )
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| `")]
    folder = pages.ROOT / path
    named = {name for row in rows for name in re.findall(r"`([\w.]+)/?`", row[1])}
    assert all((folder / name).exists() for name in named)
    known = {file.name for file in (pages.ROOT / "submitter" / "storage").glob("*.py")}
    for name in re.findall(r"`([\w/]+/\w+\.py)`", text) + re.findall(r"`(\w+\.py)`[,;]", text):
        assert (folder / name).is_file() or name in known or list(folder.rglob(name)), name
    there = {each.name for each in folder.iterdir() if (each / "__init__.py").is_file()}
    assert there <= named
    for row in rows:
        for first in re.findall(r"`(\w+\.py)`", row[3]) if len(row) > 4 else []:
            places = [folder / name / first for name in re.findall(r"`([\w.]+)/?`", row[1])]
            assert any(place.is_file() for place in places), first


def python_blocks() -> list[str]:
    return [block.text for block in pages.blocks("python")]


@pytest.mark.parametrize("source", python_blocks(), ids=lambda text: text.splitlines()[0][2:])
def test_python_compiles_and_imports_public_names(source: str) -> None:
    """Every Python block compiles; what it imports from our packages is public."""
    names = {
        (node.module, alias.name)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    compile(source, "README.md", "exec")
    public = {"receiver": receiver, "submitter": submitter, "receiver.testing": testing}
    public |= {"receiver.safe_http": safe_http}
    ours = {(module, name) for module, name in names if module in public}
    assert ours
    assert ours <= {(name, each) for name, kind in public.items() for each in kind.__all__}


def test_attributes_of_events_and_contexts_exist() -> None:
    """The sentence that names them names nothing else."""
    line = pages.the_line("An event has ")
    event, _, context = line.partition("A context has")
    known = {name for each in (Event, Prediction) for name in dir(each)}
    known |= {*Event.__dataclass_fields__, *Prediction.__dataclass_fields__}
    assert set(re.findall(r"`(\w+)`", event)) <= known
    assert set(re.findall(r"`(\w+)`", context)) == set(Context.__dataclass_fields__)


def test_the_kit_for_handlers_is_all_there() -> None:
    """The table names what is public, and what a run has; types need no row."""
    cells = " ".join(cell for row in pages.table("name | what it is") for cell in row)
    named = {word for span in re.findall(r"`([^`]+)`", cells) for word in re.findall(r"\w+", span)}
    assert {*testing.__all__} - {"Earlier", "Run"} <= named
    assert {*testing.Run.__dataclass_fields__} <= named
    assert {*inspect.signature(testing.run_handler).parameters} - {"handler", "random"} <= named
    signs = {name for name, value in vars(testing.deliveries).items() if callable(value)}
    assert {name for name in signs if name.islower() and name[0] != "_"} <= named
    assert f"{len(testing.hostile_events())} verified events" in cells


def test_no_page_longer_than_a_sitting() -> None:
    """The README is read in five minutes, a reference in a sitting."""
    assert len(pages.MAIN.text.splitlines()) <= 260
    for page in pages.ALL.values():
        assert len(page.text.splitlines()) < 520, page.path

"""From settings and modules to installed handlers."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from receiver.dispatch.dispatcher import Dispatcher
from receiver.errors import SettingsError
from receiver.event import Event
from receiver.handlers.command import CommandHandler
from receiver.handlers.http import HttpHandler
from receiver.handlers.loading import install, load_modules, load_section
from receiver.handlers.log import LogHandler
from receiver.handlers.retry import Backoff
from receiver.handlers.routing import Route
from receiver.stores.memory import MemoryStore
from receiver.telemetry import TelemetryEvent

Project = Callable[..., None]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """Writes Python modules into a folder on the path, and entry points beside them."""
    known = set(sys.modules)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])

    def write(entries: str = "", metadata: str = "", name: str = "stranger", **files: str) -> None:
        for module, text in files.items():
            (tmp_path / f"{module}.py").write_text(textwrap.dedent(text))
        if entries:
            info = tmp_path / f"{name}-1.0.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Name: {name}\nVersion: 1.0\n{metadata}")
            (info / "entry_points.txt").write_text(f"[wavehook.handlers]\n{entries}\n")

    yield write
    for module in set(sys.modules) - known:
        del sys.modules[module]


def faults(section: Any, name: str = "x") -> list[str]:
    with pytest.raises(SettingsError) as error:
        load_section(name, section)
    return list(error.value.faults)


def test_a_section_as_in_the_design(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dispatcher's keys are the dispatcher's, the rest goes to the factory."""
    monkeypatch.setenv("SHOP_URL", "https://shop.example/hooks")
    monkeypatch.setenv("SHOP_SECRET", "whsec_" + "A" * 43 + "=")
    one = load_section(
        "team",
        {
            "use": "http",
            "on": ["prediction.completed", "prediction.failed"],
            "models": ["kwaivgi/*"],
            "sources": "wavespeed",
            "after": ["keep"],
            "url": "env:SHOP_URL",
            "secret": ["env:SHOP_SECRET"],
            "timeout": "10s",
            "concurrency": 4,
            "rate": "1/s",
            "retry": {"attempts": 8, "base": "2s", "cap": "10m"},
        },
    )
    assert one.route == Route(
        "team",
        ("prediction.completed", "prediction.failed"),
        ("kwaivgi/*",),
        ("wavespeed",),
        ("keep",),
    )
    assert (one.timeout, one.concurrency, one.rate) == (10.0, 4, 1.0)
    assert one.retry == Backoff(8, 2.0, 600.0)
    assert isinstance(one.handle, HttpHandler)
    assert one.close == one.handle.close


def test_every_built_in_comes_through_the_entry_points() -> None:
    """`log`, `http` and `command` are found as a stranger's handlers are."""
    made = install(
        {
            "a": {"use": "log"},
            "b": {"use": "http", "url": "https://x.example", "secret": "whsec_" + "A" * 43 + "="},
            "c": {"use": "command", "run": ["sh"]},
        }
    )
    assert [type(one.handle) for one in made] == [LogHandler, HttpHandler, CommandHandler]
    assert made[0].close is None


def test_a_handler_brings_rules_of_its_own(project: Project) -> None:
    """They hold where the section does not set the key; one that makes no sense is a fault."""
    project(
        "long = long:create",
        long="""
        class Long:
            def __init__(self, rules):
                self.rules = rules

            async def __call__(self, event, context):
                return None

        def create(name, settings):
            return Long({"timeout": settings["own"], "retry": {"attempts": 50}})
        """,
    )
    one = load_section("x", {"use": "long", "own": "30m"})
    assert (one.timeout, one.concurrency, one.retry) == (1800.0, 16, Backoff(50, 2.0, 600.0))
    other = load_section("x", {"use": "long", "own": "30m", "timeout": "5s", "retry": {}})
    assert (other.timeout, other.retry) == (5.0, Backoff())
    [fault] = faults({"use": "long", "own": "long"})
    assert fault.startswith("handlers.x.timeout: 'long', expected a duration such as 500ms")


def test_all_faults_of_a_section_come_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """F16: keys of the dispatcher, of the handler and of the environment, without any value."""
    monkeypatch.delenv("NOT_SET", raising=False)
    monkeypatch.setenv("TIMEOUT", "s3cret")
    assert faults(
        {
            "use": "http",
            "url": "env:NOT_SET",
            "secret": "file:/no/such/file",
            "headers": {"A": "env:"},
            "timeout": "env:TIMEOUT",
            "rate": "fast",
            "retry": {"attempts": 0, "tries": 3},
            "on": [],
            "alow": [],
        }
    ) == [
        "handlers.x.url: 'env:NOT_SET', expected this environment variable to be set",
        (
            "handlers.x.secret: 'file:/no/such/file', expected a file that can be read "
            "(No such file or directory)"
        ),
        "handlers.x.headers.A: 'env:', expected a name after env:",
        "handlers.x.on: [], expected at least one",
        (
            "handlers.x.timeout: '…', expected a duration such as 500ms, 30s, 2m or 1h, "
            "or a number of seconds"
        ),
        "handlers.x.rate: 'fast', expected a rate such as 1/s, 30/m or 100/h, or a number a second",
        "handlers.x.retry.attempts: 0, expected a number of at least 1",
        "handlers.x.retry.tries: unknown key, expected one of attempts, base, cap",
        (
            "handlers.x.alow: unknown key, expected one of after, allow, concurrency, headers, "
            "models, on, rate, retry, secret, sources, timeout, url, use; did you mean allow?"
        ),
    ]


def test_files_are_read_without_their_last_newline(tmp_path: Path) -> None:
    """`file:` values work as Docker's and systemd's secrets do."""
    (tmp_path / "secret").write_text("whsec_" + "A" * 43 + "=\n")
    section = {"use": "http", "url": "https://x.example", "secret": f"file:{tmp_path}/secret"}
    assert isinstance(load_section("x", section).handle, HttpHandler)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "it is empty; expected a value in it"),
        (b"\n", "it is empty; expected a value in it"),
        (b"s3cret" * 20_000, "expected a file of at most 65536 bytes"),
        (b"s3cret\xff", "expected a file of UTF-8 text"),
    ],
)
def test_files_that_cannot_be_a_value(tmp_path: Path, content: bytes, fault: str) -> None:
    """F16: the fault names key and path, never what is in the file."""
    (tmp_path / "secret").write_bytes(content)
    (found,) = faults({"use": "log", "to": f"file:{tmp_path}/secret"})
    assert found == f"handlers.x.to: 'file:{tmp_path}/secret', {fault}"


def test_a_path_that_is_none() -> None:
    """A NUL in a path is a fault and no traceback."""
    assert faults({"use": "log", "to": "file:a\0b"})[0].endswith("expected a file of UTF-8 text")


def test_use_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any text may be `env:`; a missing one is one fault."""
    monkeypatch.setenv("USE", "log")
    assert isinstance(load_section("x", {"use": "env:USE"}).handle, LogHandler)
    monkeypatch.delenv("USE")
    assert len(faults({"use": "env:USE"})) == 1


@pytest.mark.parametrize("use", ["lgo", "log ", "Log"])
def test_an_unknown_use_names_the_known_ones(use: str) -> None:
    """With the closest one as a suggestion."""
    (found,) = faults({"use": use})
    assert found.startswith(f"handlers.x.use: {use!r}, expected one of apprise,")
    assert found.endswith("; did you mean log?")


def test_a_missing_use_names_the_known_ones() -> None:
    """Also where nothing is like it there is no suggestion."""
    assert faults({})[0].startswith("handlers.x.use: missing, expected one of apprise,")
    assert "did you mean" not in faults({"use": 5})[0]


@pytest.mark.parametrize("name", ["", "a b", "é", "a\n", "-a", "x" * 65])
def test_a_name_that_cannot_stand_in_a_header(name: str) -> None:
    """F17: a handler's name becomes part of keys, metrics and links."""
    assert "expected a name of 1 to 64 letters" in faults({"use": "log"}, name)[0]


def test_a_section_that_is_no_table() -> None:
    """`handlers.x = "log"` says what to write."""
    assert faults("log") == ["handlers.x: expected a table with at least `use`"]


STRANGER = """
    from pydantic import BaseModel, Field
    from receiver.errors import SettingsError

    class Settings(BaseModel):
        model_config = {"extra": "forbid"}
        size: int

    class Handler:
        def __init__(self, settings):
            self.settings = settings
        async def __call__(self, event, context):
            return self.settings

    def create(name, settings):
        return Handler(settings)

    def strict(name, settings):
        return Settings.model_validate(settings)

    def faulty(name, settings):
        raise SettingsError(["no size", f"handlers.{name}.size: missing"])

    def broken(name, settings):
        raise RuntimeError(f"cannot use {settings}, {settings['token']}")

    def nothing(name, settings):
        return None

    def optional(name, settings):
        import no_such_package.inner
"""
ENTRIES = "\n".join(
    f"{name} = stranger_module:{name}"
    for name in ("create", "strict", "faulty", "broken", "nothing", "optional")
)


async def test_a_strangers_handler_is_loaded(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gets its own settings, read, at every depth, and none of the dispatcher's."""
    project(ENTRIES, stranger_module=STRANGER)
    monkeypatch.setenv("DEEP", "value")
    section = {"use": "create", "rate": 1, "a": [{"b": "env:DEEP"}, 5], "c": "plain"}
    handle: Any = load_section("mine", section).handle
    assert await handle(None, None) == {"a": [{"b": "value"}, 5], "c": "plain"}


def test_a_strangers_faults_are_told(project: Project) -> None:
    """F16: its SettingsError, its pydantic errors without values, a factory that makes nothing."""
    project(ENTRIES, stranger_module=STRANGER)
    assert faults({"use": "faulty"}) == ["handlers.x: no size", "handlers.x.size: missing"]
    assert faults({"use": "strict", "size": "big", "more": 1}) == [
        "handlers.x.size: '…', expected a whole number",
        "handlers.x.more: unknown key, expected a key from the handler's documentation",
    ]
    assert faults({"use": "nothing"}) == [
        "handlers.x.use: 'nothing', expected a factory of a handler"
    ]


def test_a_strangers_crash_shows_no_secret(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F16: what was read from the environment is masked wherever its error repeats it."""
    project(ENTRIES, stranger_module=STRANGER)
    monkeypatch.setenv("TOKEN", "s3cret")
    (fault,) = faults({"use": "broken", "token": "env:TOKEN", "more": ["env:TOKEN"]})
    assert fault.startswith("handlers.x: 'broken' cannot be made (RuntimeError: cannot use")
    assert "s3cret" not in fault


async def test_what_came_from_the_environment_is_in_no_error(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F16: not in the row of an attempt, nor in the log, whatever a handler's error repeats."""
    monkeypatch.setenv("TOKEN", "s3cret")
    monkeypatch.setenv("BOTH", "Bearer s3cret")
    monkeypatch.setenv("SHORT", "us")
    project(
        "leaky = leaky_module:create",
        leaky_module="""
            class Leaky:
                def __init__(self, settings):
                    self.text = "because " + str(dict(settings))
                async def __call__(self, event, context):
                    raise ConnectionError(self.text)
                async def close(self):
                    raise ConnectionError(self.text)
            def create(name, settings):
                return Leaky({key: str(value) for key, value in settings.items()})
        """,
    )
    section = {"use": "leaky", "a": "env:TOKEN", "b": "env:BOTH", "c": "env:SHORT", "d": "open"}
    installed = load_section("x", section)
    assert "s3cret" not in repr(installed)
    event, told = Event("s:1:x", "s", "t"), list[TelemetryEvent]()
    store = MemoryStore()
    await store.open()
    await store.add(event, {"x": ()})
    dispatcher = Dispatcher(store, [installed], owner="one", hooks=[told.append])
    await dispatcher.drain()
    await dispatcher.stop(0)
    (dispatch,) = await store.dispatches(event.id)
    because = "ConnectionError: because {'a': '…', 'b': '…', 'c': 'us', 'd': 'open'}"
    assert dispatch.error == because
    assert [each.error for each in told] == [because, because]


def test_a_missing_package_names_the_module(project: Project) -> None:
    """Where no extra is known, the module and the reason."""
    project(ENTRIES, stranger_module=STRANGER)
    (fault,) = faults({"use": "optional"})
    assert fault == (
        "handlers.x.use: 'optional' needs the module 'no_such_package' "
        "(ModuleNotFoundError: No module named 'no_such_package')"
    )


@pytest.mark.parametrize("entries", ["queue = stranger_module:optional [mq]", "mq = gone:create"])
def test_a_missing_package_names_the_extra(project: Project, entries: str) -> None:
    """The extra of the entry point, or the one of the handler's name."""
    project(entries, "Provides-Extra: mq\n", stranger_module=STRANGER)
    (fault,) = faults({"use": entries.partition(" ")[0]})
    assert fault.endswith("; install it with: pip install 'stranger[mq]'")


def test_an_import_that_names_no_module(project: Project) -> None:
    """An ImportError of somebody's own."""
    project("own = own_module:create", own_module="raise ImportError('needs a newer libc')")
    assert faults({"use": "own"}) == [
        "handlers.x.use: 'own' needs a module (ImportError: needs a newer libc)"
    ]


def test_two_packages_with_one_name(project: Project) -> None:
    """Which of them is meant cannot be guessed."""
    project("twin = one:create", name="first")
    project("twin = two:create", name="second")
    assert faults({"use": "twin"}) == [
        "handlers.x.use: 'twin' is offered by one:create and two:create, expected only one"
    ]


DECORATED = """
    from receiver import Context, Event, on

    @on("prediction.completed")
    async def second(event: Event, context: Context) -> None: ...

    @on(after="second", name="first")
    async def publish(event: Event, context: Context) -> None: ...

    async def not_a_handler(event: Event, context: Context) -> None: ...
"""


def test_modules_give_their_functions_in_order(project: Project) -> None:
    """In the order of the file, and of the modules."""
    project(
        one=DECORATED,
        two="from receiver import on\n@on()\nasync def third(event, context): ...",
    )
    assert [one.name for one in load_modules(" one, two,,")] == ["second", "first", "third"]
    assert [one.name for one in load_modules(["two", "one"])] == ["third", "second", "first"]


def test_a_function_that_is_imported_counts_once(project: Project) -> None:
    """A package may gather its handlers in one module, and name both."""
    project(one=DECORATED, gathered="from one import publish, second")
    assert [one.name for one in load_modules("gathered")] == ["first", "second"]
    assert [one.name for one in load_modules("one,gathered")] == ["second", "first"]


def test_modules_of_the_working_directory_are_found(
    tmp_path: Path, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As other servers do, last of all."""
    project(here=DECORATED)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(tmp_path)])
    monkeypatch.chdir(tmp_path)
    assert len(load_modules("here")) == 2
    assert sys.path[-1] == str(tmp_path)


def test_no_modules_no_handlers() -> None:
    """Nothing named, nothing found, nothing added to the path."""
    before = list(sys.path)
    assert load_modules("") == []
    assert sys.path == before


def test_faults_of_modules_come_at_once(project: Project) -> None:
    """Each module with the reason, in one line, and no traceback."""
    project(
        syntax="def broken(:",
        empty="import receiver",
        crash="raise RuntimeError('at import')",
        sync="from receiver import on\n@on()\ndef publish(event, context): ...",
        wrong="from receiver import on\n@on(timeout='soon')\nasync def publish(e, c): ...",
    )
    with pytest.raises(SettingsError) as error:
        load_modules("syntax,empty,crash,sync,wrong,no.such.module,..relative")
    starts = [
        "WAVEHOOK_HANDLERS: 'syntax' cannot be imported (SyntaxError: ",
        "WAVEHOOK_HANDLERS: 'empty', expected functions decorated by @on in it",
        "WAVEHOOK_HANDLERS: 'crash' cannot be imported (RuntimeError: at import), expected",
        "WAVEHOOK_HANDLERS: 'sync' cannot be imported (TypeError: publish is not an async function",
        "WAVEHOOK_HANDLERS: wrong: publish: @on.timeout: 'soon', expected a duration",
        "WAVEHOOK_HANDLERS: 'no.such.module' cannot be imported (ModuleNotFoundError: No module",
        "WAVEHOOK_HANDLERS: '..relative' cannot be imported (TypeError: ",
    ]
    assert len(error.value.faults) == len(starts)
    for fault, start in zip(error.value.faults, starts, strict=True):
        assert fault.startswith(start)
        assert "\n" not in fault


def together(sections: dict[str, Any], modules: str = "") -> list[str]:
    with pytest.raises(SettingsError) as error:
        install(sections, modules)
    return list(error.value.faults)


def test_sections_and_modules_are_installed_together(project: Project) -> None:
    """Sections first; `after` may name a handler of the other kind."""
    project(one=DECORATED)
    made = install({"last": {"use": "log", "after": ["first", "second"]}}, "one")
    assert [one.name for one in made] == ["last", "second", "first"]


def test_a_name_is_given_once(project: Project) -> None:
    """A section and a function of one name would share their dispatches."""
    project(one=DECORATED)
    assert together({"second": {"use": "log"}}, "one") == [
        "handlers.second: two handlers of this name, expected another name for one"
    ]


def test_after_must_lead_somewhere() -> None:
    """With the closest name as a suggestion."""
    sections = {"keep": {"use": "log"}, "tell": {"use": "log", "after": ["kepp", "zzz"]}}
    assert together(sections) == [
        "handlers.tell.after: 'kepp', expected the name of a handler; did you mean keep?",
        "handlers.tell.after: 'zzz', expected the name of a handler",
    ]


@pytest.mark.parametrize(
    ("after", "circle"),
    [
        ({"a": "a"}, {"a -> a"}),
        ({"a": "b", "b": "a"}, {"a -> b -> a", "b -> a -> b"}),
    ],
)
def test_after_must_not_go_round(after: dict[str, str], circle: set[str]) -> None:
    """A circle would wait for ever; the fault shows it in the order of waiting."""
    sections = {name: {"use": "log", "after": other} for name, other in after.items()}
    (fault,) = together(sections)
    assert fault.partition(": ")[2].removesuffix(", expected no circle") in circle


def test_everything_is_reported_at_once(project: Project) -> None:
    """A section that failed is still a name that `after` may use."""
    project(empty="")
    found = together(
        {"bad": {"use": "none"}, "worse": 5, "tell": {"use": "log", "after": ["bad", "gone"]}},
        "empty",
    )
    assert [fault.partition(":")[0] for fault in found] == [
        "handlers.bad.use",
        "handlers.worse",
        "WAVEHOOK_HANDLERS",
        "handlers.tell.after",
    ]


@pytest.mark.parametrize(
    ("use", "settings", "expected"),
    [
        ("command", {"run": ["ls"], "env": ["a b"]}, "the name of an environment variable"),
        ("slack", {"token": "wrong"}, "a bot's token, which begins with xox"),
        ("slack", {"url": "https://h.example", "user_from": "a..b"}, "a key of the context"),
        ("log", {"to": ""}, "a text that is not empty"),
        ("log", {"outputs": "perhaps"}, "true or false"),
    ],
)
def test_a_pattern_or_limit_is_told_in_words(
    use: str, settings: dict[str, object], expected: str
) -> None:
    """F15: neither a regular expression nor a message of pydantic reaches a person."""
    (told,) = faults({"use": use, **settings})
    assert f"expected {expected}" in told
    assert "pattern" not in told
    assert "^" not in told

"""The handler contract: tests that every handler must pass, for a package of handlers to inherit.

    class TestPublish(HandlerContract):
        factory = staticmethod(create)
        settings = {"url": "https://127.0.0.1:9", "token": "t0ken-of-the-tests"}
        secrets = ("token",)

Any test runner that collects methods named `test_…`, such as pytest, runs them without a plug-in.
The handler's services need not be reachable: a failing run passes, unless it fails in a wrong way.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, TypeVar

from structlog.testing import capture_logs

from receiver.dispatch.attempt import MAX_RESULT_BYTES, Exited, TimedOut, compact_json, run
from receiver.errors import SettingsError
from receiver.event import Claim, Dispatch, Event
from receiver.handlers.base import Context, Factory, Handler, Installed, mask
from receiver.handlers.loading import make
from receiver.handlers.retry import describe
from receiver.handlers.routing import Route
from receiver.telemetry.log import VERBOSE_LOGGERS
from receiver.testing.events import context, event
from receiver.testing.hostile import UNREACHABLE_URL, hostile_events

T = TypeVar("T")

NAME = "tested"

FORBIDDEN_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    RecursionError,
    TypeError,
    UnicodeError,
    TimedOut,
    Exited,
)
"""Errors that a run must not end with: each shows a bug, and would be retried in vain."""

INVALID_VALUE = [[{"no": ["such", "type"]}]]
"""A value that no setting accepts."""

PRIVATE_TEXTS = {"prompt": "prompt-0b7e", "context": "context-4f1d"}
"""Texts that every event contains, and no error or log line may contain."""


class HandlerContract:
    """Base class for the tests of one handler; a subclass sets the attributes.

    A failing test raises `AssertionError` with all faults that it found.

    Attributes:
        factory: the handler's factory `create(name, settings)`, wrapped in `staticmethod`.
        settings: valid settings for the factory; every key given is tested.
        secrets: names of the settings whose values must never be shown.
        patience: seconds for one run, `close()` or `check()`.
    """

    factory: Factory
    settings: Mapping[str, Any] = MappingProxyType({})
    secrets: Collection[str] = ()
    patience = 10.0

    def test_an_unknown_setting_is_a_fault(self) -> None:
        """A mistyped setting is refused, and the error names the handler and the setting."""
        self._has_fault("no_such_setting", 1)

    def test_a_setting_of_the_wrong_type_is_a_fault(self) -> None:
        """Settings are checked at the start, not at the first event."""
        for key in self.settings:
            self._has_fault(key, INVALID_VALUE)

    def test_a_missing_setting_is_a_fault_or_has_a_default(self) -> None:
        """Without a setting, the factory makes a handler or names what is missing."""
        for key in self.settings:
            faults = _faults(self.factory, self._without(key))
            _none(f"without {key}: {fault}" for fault in faults if "cannot be made" in fault)

    def test_secrets_are_never_shown(self) -> None:
        """No secret is in the error of any setting, nor in the handler's `repr`."""
        for key in self.secrets:
            for wrong in ("s3cret \0", ["s3cret"], {"name": "s3cret"}, [[{"name": "s3cret"}]]):
                faults = _faults(self.factory, {**self.settings, key: wrong})
                _none(f"{key} is shown: {fault}" for fault in faults if "s3cret" in fault)
        shown = [repr(self._made())]
        for key in self.settings:
            shown += _faults(self.factory, self._without(key))
            shown += _faults(self.factory, {**self.settings, key: INVALID_VALUE})
        _none(f"a secret is shown: {text}" for text in shown if self._shows_secret(text))

    def test_a_strange_event_ends_well_or_with_a_reason(self) -> None:
        """A run ends as the port of handlers allows, for any verified event."""
        events = hostile_events()
        outcomes = self._outcomes(*events.values())
        _none(
            f"{strange}: {fault}"
            for strange, outcome in zip(events, outcomes, strict=True)
            if (fault := _fault(outcome))
        )

    def test_what_it_returns_is_kept(self) -> None:
        """The result is small JSON; another is not stored for the handlers that run `after`."""
        outcomes = self._outcomes(_event(), _event("failed"))
        _none(fault for each in outcomes if (fault := _unkept(each)))

    def test_nothing_private_is_in_errors_and_logs(self) -> None:
        """No secret, prompt or context is in an error or in the log, at any level."""
        with _logged() as lines:
            outcomes = self._outcomes(_event(), _event("failed"))
        errors = [f"{each} {each!r}" for each in outcomes if isinstance(each, Exception)]
        _none(
            f"private: {line}"
            for line in lines + errors
            if self._shows_secret(line) or any(text in line for text in PRIVATE_TEXTS.values())
        )

    def test_a_second_run_ends_as_the_first(self) -> None:
        """Delivery is at least once: an interrupted run is repeated with the same key."""
        same = _event()
        first, second = self._outcomes(same, same)
        _none([_differ(first, second)] if _kind(first) != _kind(second) else [])

    def test_many_runs_at_once_end_as_one(self) -> None:
        """The dispatcher runs up to `concurrency` events at the same time."""
        (alone,) = self._outcomes(_event())

        async def at_once(handler: Handler) -> list[object]:
            events = [_event(id=f"task-{number}") for number in range(20)]
            return await asyncio.gather(*(self._run(handler, each) for each in events))

        together = self._with_handler(at_once)
        _none(_differ(alone, each) for each in together if _kind(each) != _kind(alone))

    def test_it_can_be_cancelled_at_any_time(self) -> None:
        """A run can be cancelled: by its timeout, and when the process stops."""

        async def cancel(handler: Handler) -> list[str]:
            late = []
            for turns in (0, 1, 2, 3, 5, 10, 20, 50):
                made = _event(id=f"task-{turns}")
                # Not through the dispatcher, which would abandon a task that ignores it.
                task = asyncio.ensure_future(handler(made, context(made)))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                _, going = await asyncio.wait({task}, timeout=self.patience)
                late += [
                    f"cancelled after {turns} turns of the event loop, it goes on" for _ in going
                ]
                if task.done() and not task.cancelled():
                    task.exception()  # marks it as retrieved: other tests check how runs end
            return late

        _none(self._with_handler(cancel))

    def test_it_closes_twice_and_works_again_on_another_loop(self) -> None:
        """A serverless platform starts and stops the app around every request."""
        handler = self._made()

        async def live() -> object:
            before = asyncio.all_tasks()
            outcome = await self._run(handler, _event())
            for _ in range(2):
                await self._close(handler)
            left = asyncio.all_tasks() - before
            if left:
                await asyncio.wait(left, timeout=1.0)
            _none(f"after close() a task goes on: {task}" for task in left if not task.done())
            return outcome

        first, second = _on_new_loop(live()), _on_new_loop(live())
        _none([_differ(first, second)] if _kind(first) != _kind(second) else [])

    def test_its_check_says_something(self) -> None:
        """`check()` returns or raises one sentence for `wavehook check`, without a secret."""

        async def check(handler: Handler) -> str:
            try:
                async with asyncio.timeout(self.patience):
                    found = await getattr(handler, "check", _nothing_to_try)()
            except Exception as error:  # noqa: BLE001 - any error is inspected
                _none([f"check: {describe(error)}"] if isinstance(error, FORBIDDEN_ERRORS) else [])
                return describe(error)
            return str(found)

        said = self._with_handler(check)
        _none([] if said.strip() else ["check: the sentence is empty"])
        _none([f"a secret is shown: {said}"] if self._shows_secret(said) else [])

    def _made(self) -> Handler:
        return _made(self.factory, self.settings)

    def _without(self, key: str) -> dict[str, Any]:
        return {name: value for name, value in self.settings.items() if name != key}

    def _shows_secret(self, text: str) -> bool:
        hidden = [each for key in self.secrets for each in _texts(self.settings[key])]
        return mask(text, hidden) != text

    def _has_fault(self, key: str, value: object) -> None:
        faults = _faults(self.factory, {**self.settings, key: value})
        if not any(fault.startswith(f"handlers.{NAME}.{key}") for fault in faults):
            raise AssertionError(
                f"{key} = {value!r} is accepted, or its error does not name it: {faults}"
            )

    def _outcomes(self, *events: Event) -> list[object]:
        """The outcome of each event, in turn: a return value or an exception."""

        async def in_turn(handler: Handler) -> list[object]:
            return [await self._run(handler, each) for each in events]

        return self._with_handler(in_turn)

    def _with_handler(self, work: Callable[[Handler], Awaitable[T]]) -> T:
        handler = self._made()

        async def live() -> T:
            try:
                return await work(handler)
            finally:
                await self._close(handler)

        return _on_new_loop(live())

    async def _run(self, handler: Handler, event: Event) -> object:
        """Run as the dispatcher does, but return the unchanged result, or the error."""
        returned: list[object] = []

        async def keep(event: Event, context: Context) -> None:
            returned.append(await handler(event, context))

        installed = Installed(Route(NAME), keep, timeout=self.patience)
        dispatch = Dispatch(event.id, NAME, attempt=1, tries=1)
        _, error = await run(installed, Claim(dispatch, event), time.time(), lambda: 1.0)
        return error if error is not None else returned[0]

    async def _close(self, handler: Handler) -> None:
        async with asyncio.timeout(self.patience):
            await getattr(handler, "close", _nothing_to_close)()


def _event(status: str = "completed", **fields: Any) -> Event:
    outputs = [UNREACHABLE_URL] if status == "completed" else []
    return event(
        status,
        outputs=outputs,
        context={"who": PRIVATE_TEXTS["context"]},
        input={"prompt": PRIVATE_TEXTS["prompt"], "image": UNREACHABLE_URL},
        **fields,
    )


async def _nothing_to_close() -> None:
    """Stands in for a missing `close`."""


async def _nothing_to_try() -> str:
    return "nothing to try"


def _made(factory: Factory, settings: Mapping[str, Any]) -> Handler:
    return make(NAME, NAME, lambda: factory, settings)


def _faults(factory: Factory, settings: Mapping[str, Any]) -> tuple[str, ...]:
    try:
        _made(factory, settings)
    except SettingsError as error:
        return error.faults
    return ()


def _fault(outcome: object) -> str | None:
    """The fault of an outcome, if it has one."""
    if isinstance(outcome, Exception):
        return describe(outcome) if isinstance(outcome, FORBIDDEN_ERRORS) else None
    return _unkept(outcome)


def _unkept(outcome: object) -> str | None:
    """The fault of a result that is not stored."""
    try:
        if isinstance(outcome, Exception) or len(compact_json(outcome)) <= MAX_RESULT_BYTES:
            return None
    except (TypeError, ValueError, RecursionError):
        pass
    name = type(outcome).__name__
    return f"{name} is not JSON of at most {MAX_RESULT_BYTES} bytes, so it is not stored"


def _kind(outcome: object) -> type | None:
    return type(outcome) if isinstance(outcome, Exception) else None


def _differ(first: object, second: object) -> str:
    ends = [describe(each) if isinstance(each, Exception) else "done" for each in (first, second)]
    return f"one run ended with {ends[0]!r}, another with {ends[1]!r}"


def _texts(value: object) -> Iterator[str]:
    """All texts in a setting, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts(list(value.values()))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)


def _none(faults: Iterable[str]) -> None:
    """Raise AssertionError with all faults, if there are any."""
    found = list(faults)
    if found:
        raise AssertionError("\n".join(found))


class _LogLines(logging.Handler):
    """Keeps the lines of the standard library's loggers."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        # The receiver's own log leaves the same lines out.
        verbose = record.name.partition(".")[0] in VERBOSE_LOGGERS
        if not verbose or record.levelno >= logging.WARNING:
            self.lines.append(self.format(record))


@contextmanager
def _logged() -> Iterator[list[str]]:
    """Capture the lines of logging at every level; those of structlog are added at the end."""
    root, handler = logging.getLogger(), _LogLines()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        with capture_logs() as entries:
            yield handler.lines
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    handler.lines += [str(dict(entry)) for entry in entries]


def _on_new_loop(work: Coroutine[Any, Any, T]) -> T:
    """As `asyncio.run`, but a task that ignores its cancellation is abandoned after a second."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(work)
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=1.0))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        asyncio.set_event_loop(None)
        loop.close()

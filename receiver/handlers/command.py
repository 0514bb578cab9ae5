"""`command`: runs a program with the event on its standard input.

    [handlers.transcode]
    use = "command"
    run = ["/usr/local/bin/transcode", "--preset", "web"]
    env = ["HOME"]              # passed on from our environment, beside PATH; nothing else is
    cwd = "/srv/videos"
    stderr = "inherit"          # the program's standard error goes to ours; unless given, nowhere
    timeout = "10m"             # the dispatcher's key, as for every handler

There is no shell, and no event data among the arguments. The program reads the JSON of
`receiver.handlers.envelope`, and finds `WAVEHOOK_EVENT_KEY` (stable over retries) and
`WAVEHOOK_ATTEMPT` in its environment. It ends with:

| exit status | what follows |
|---|---|
| 0 | done; if its standard output is JSON (64 KiB at most), that is the result |
| 75 | again; where its standard output is a duration such as `30s`, not before then |
| 100 | never again |
| any other, or killed | again by the retry policy |

At its time limit, or when we shut down, the program and all that it started get SIGTERM, and two
seconds later SIGKILL. What it prints is never logged: it may hold prompts. Windows has no such
signals, and so not this handler.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from receiver.errors import GiveUp, Retry, SettingsError
from receiver.event import Event
from receiver.handlers.base import Context
from receiver.handlers.envelope import encode, plain
from receiver.handlers.settings import read
from receiver.strict_json import Unreadable, parse
from submitter.prediction import JSON
from submitter.units import seconds

MAX_OUTPUT = 64 * 1024
"""Bytes of standard output that are read; the rest is thrown away."""

_EXPECTED = 'a list, the program and its arguments, such as ["/bin/tool", "-v"]'
_LATER, _NEVER = 75, 100
_GRACE = 2.0
_Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


def _arguments(value: object) -> object:
    """A list; a text would have to be split as a shell does, and there is none."""
    if not isinstance(value, list | tuple) or not value or any("\0" in str(each) for each in value):
        raise ValueError(_EXPECTED)
    return value


class Settings(BaseModel):
    """The handler's own settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: Annotated[tuple[str, ...], BeforeValidator(_arguments)] = Field(
        repr=False, description=_EXPECTED
    )
    env: tuple[_Name, ...] = ()
    cwd: Path | None = None
    stderr: Literal["discard", "inherit"] = "discard"


class Command:
    """Runs one program, once for each event."""

    def __init__(
        self,
        program: str,
        settings: Settings,
        clock: Callable[[], float] = time.time,
        grace: float = _GRACE,
    ) -> None:
        self._arguments = (program, *settings.run[1:])
        self._settings = settings
        self._clock = clock
        self._grace = grace

    async def __call__(self, event: Event, context: Context) -> JSON:
        """Run the program. See the module's docstring for what each exit status means."""
        transport, run = await self._start(context)
        try:
            async with asyncio.timeout(max(context.deadline - self._clock(), 0.0)):
                run.feed(transport, encode(event))
                await run.exited.wait()
            # A child that it left behind may hold the output open for as long as it lives.
            with suppress(TimeoutError):
                await asyncio.wait_for(run.drained.wait(), self._grace)
        except TimeoutError:
            raise TimeoutError("the program did not end in time") from None
        finally:
            await self._close(transport, run)
        return _read(transport.get_returncode(), bytes(run.output))

    async def check(self) -> str:
        """Look whether the program, and where it is to run, are still there."""
        program, folder = self._arguments[0], self._settings.cwd
        if await asyncio.to_thread(shutil.which, program) is None:
            raise FileNotFoundError(f"{program} is no program that we may run")
        if folder is not None and not await asyncio.to_thread(os.access, folder, os.X_OK):
            raise FileNotFoundError(f"{folder} is no folder that we may enter")
        return f"{program} can be run"

    async def _start(self, context: Context) -> tuple[asyncio.SubprocessTransport, _Run]:
        settings = self._settings
        starting = asyncio.ensure_future(
            asyncio.get_running_loop().subprocess_exec(
                _Run,
                *self._arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL if settings.stderr == "discard" else None,
                cwd=settings.cwd,
                env={
                    **_environment(settings.env),
                    "WAVEHOOK_EVENT_KEY": plain(context.key),
                    "WAVEHOOK_ATTEMPT": str(context.attempt),
                },
                # Its own group, so that whatever it starts can be ended with it.
                start_new_session=True,
            )
        )
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            # A start that is cancelled half-way ends the program, but not its children.
            with suppress(OSError):
                await self._close(*await starting)
            raise

    async def _close(self, transport: asyncio.SubprocessTransport, run: _Run) -> None:
        """Ask a program that still runs, and its children, to end; then end them."""
        try:
            if not run.exited.is_set():
                await self._end(transport.get_pid(), run)
        finally:
            transport.close()

    async def _end(self, group: int, run: _Run) -> None:
        try:
            _kill(group, signal.SIGTERM)
            with suppress(TimeoutError):
                await asyncio.wait_for(run.exited.wait(), self._grace)
        finally:
            _kill(group, signal.SIGKILL)
            with suppress(TimeoutError):
                await asyncio.wait_for(run.exited.wait(), self._grace)


class _Run(asyncio.SubprocessProtocol):
    """One run: its bounded output, and how far it is."""

    def __init__(self) -> None:
        self.output = bytearray()
        self.exited = asyncio.Event()
        self.drained = asyncio.Event()

    def feed(self, transport: asyncio.SubprocessTransport, data: bytes) -> None:
        """Give the program its input; one that does not read it all is no fault."""
        # Other event loops' pipes are of classes of their own.
        pipe = cast("asyncio.WriteTransport", transport.get_pipe_transport(0))
        # One that has ended already; uvloop raises for a write to what it has closed.
        if not pipe.is_closing():
            pipe.write(data)
            pipe.close()

    def pipe_data_received(self, _: int, data: bytes | str) -> None:
        # One byte more than the limit, so that a cut output is seen to be cut.
        self.output += cast("bytes", data)[: MAX_OUTPUT + 1 - len(self.output)]

    def pipe_connection_lost(self, fd: int, _: Exception | None) -> None:
        if fd == 1:
            self.drained.set()

    def process_exited(self) -> None:
        self.exited.set()


def create(name: str, settings: Mapping[str, Any]) -> Command:
    """Make the handler.

    Raises:
        SettingsError: with all faults, a program that is not there among them.
    """
    if not hasattr(os, "killpg"):
        fault = (
            f"handlers.{name}.use: 'command' does not work on this system: what a program has "
            "started cannot be ended with it; expected another handler, such as 'http'"
        )
        raise SettingsError([fault])
    chosen = read(Settings, name, settings)
    faults = []
    if chosen.cwd is not None and not chosen.cwd.is_dir():
        faults.append(f"handlers.{name}.cwd: {settings['cwd']!r}, expected a folder that exists")
    program = _find(chosen.run[0], chosen.cwd)
    if program is None:
        faults.append(
            f"handlers.{name}.run: {settings['run'][0]!r} is no program here, "
            "expected a path, or a name that is found on PATH"
        )
    if faults or program is None:
        raise SettingsError(faults)
    return Command(program, chosen)


def _find(program: str, cwd: Path | None) -> str | None:
    """Where the program is, resolved once, so that a later PATH changes nothing."""
    if os.sep in program:
        program = str(Path.cwd() / (cwd or "") / program)
    return shutil.which(program, path=os.environ.get("PATH", os.defpath))


def _environment(names: tuple[str, ...]) -> dict[str, str]:
    kept = {name: os.environ[name] for name in names if name in os.environ}
    return {"PATH": os.environ.get("PATH", os.defpath), **kept}


def _kill(group: int, number: int) -> None:
    # Gone already, or (on macOS) nothing but zombies left.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _read(status: int | None, output: bytes) -> JSON:
    if status == 0:
        try:
            return parse(output) if len(output) <= MAX_OUTPUT else None
        except Unreadable:
            return None
    if status == _NEVER:
        raise GiveUp(f"the program ended with {_NEVER}: never again")
    if status == _LATER:
        raise Retry(f"the program ended with {_LATER}: later", after=_duration(output))
    if status is not None and status < 0:
        raise Retry(f"the program was killed by signal {-status}")
    raise Retry(f"the program ended with {status}")


def _duration(output: bytes) -> float | None:
    try:
        return seconds(output[:64].decode())
    except ValueError:
        return None

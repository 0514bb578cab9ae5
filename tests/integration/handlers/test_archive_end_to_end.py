"""An archive under the real dispatcher, with the simulator's own videos, and who comes after it."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from pathlib import Path

from receiver import Context, Event
from receiver.dispatch.dispatcher import Dispatcher
from receiver.event import DispatchState
from receiver.handlers.archive.result import archived_files
from receiver.handlers.base import Installed
from receiver.handlers.loading import load_section
from receiver.handlers.retry import Backoff
from receiver.handlers.routing import Route, match
from receiver.stores.memory import MemoryStore
from receiver.testing import event, run_handler
from submitter.simulator.media import mp4
from tests.support.misbehaving_server import answering
from tests.support.outputs import MP4, File, files, giving, output
from tests.support.simulator import data, simulated


def keeping(folder: Path, **more: object) -> Installed:
    """An archive as `wavehook.toml` has it."""
    made = {"use": "archive", "to": str(folder), "allow": ["127.0.0.1"], **more}
    return load_section("keep", made)


async def test_a_video_of_the_api_is_kept(tmp_path: Path) -> None:
    """From the API's own answer to the file on disk, which is what the API serves."""
    async with simulated(speed=1.0) as (sim, ask):
        id = await ask.submitted(duration=5)
        await sim.forward(3600)
        body = data(await ask.result(id))
        run = await run_handler(keeping(tmp_path, name="{task}{index}{ext}"), event(**body))
    assert run.state is DispatchState.DONE
    assert [attempt.outcome for attempt in run.attempts] == ["done"]
    found = (tmp_path / f"{id}0.mp4").read_bytes()
    assert found == mp4(5)
    assert hashlib.sha256(found).hexdigest() in str(run.result)


async def test_an_outage_does_not_lose_a_video(tmp_path: Path) -> None:
    """F23: beyond the eight tries of other handlers; the longest wait is an hour."""
    outage = [answering("503 X")] * 20
    async with giving(*outage, File()) as server:
        run = await run_handler(keeping(tmp_path), event(outputs=[output(server)]))
    assert run.state is DispatchState.DONE
    assert len(run.attempts) == 21
    assert run.waited[:3] == (5.0, 10.0, 20.0)
    assert max(run.waited) == 3600.0
    assert [name for name in files(tmp_path) if name.endswith(".mp4")] != []


async def told(folder: Path, made: Event) -> tuple[list[str], list[object]]:
    """Run an archive, and a handler after it; the states in order of their names, what it saw."""
    seen: list[object] = []

    async def team(event: Event, context: Context) -> None:
        links = [kept.url for kept in archived_files(context)]
        seen.extend(links or [str(context.earlier["keep"].error)])

    keep = keeping(folder, public_url="https://cdn.example/made", retry={"attempts": 1})
    handlers = [keep, Installed(Route("team", after=("keep",)), team)]
    store = MemoryStore()
    await store.open()
    await store.add(made, match(made, [each.route for each in handlers]))
    dispatcher = Dispatcher(store, handlers, owner="one")
    await dispatcher.drain()
    await dispatcher.stop(1.0)
    states = [str(each.state) for each in await store.dispatches(made.id)]
    await store.close()
    return states, seen


async def test_who_comes_after_has_the_lasting_link(tmp_path: Path) -> None:
    """The link is under the public base, and leads to the file."""
    async with giving(File()) as server:
        states, seen = await told(tmp_path, event(outputs=[output(server)]))
    assert states == ["done", "done"]
    [link] = map(str, seen)
    name = link.removeprefix("https://cdn.example/made/")
    assert (tmp_path / name).read_bytes() == MP4


async def test_who_comes_after_learns_that_there_is_none(tmp_path: Path) -> None:
    """An archive that gave up holds nobody up; its failure is not that of the task."""
    async with giving(answering("404 X")) as server:
        made = replace(event(outputs=[output(server)]), received_at=time.time() - 3600)
        states, seen = await told(tmp_path, made)
    assert states == ["dead", "done"]
    assert seen == ["output 1 of 1: 127.0.0.1: HTTP 404"]


async def test_a_retry_policy_of_ones_own_holds(tmp_path: Path) -> None:
    """Whoever does not want later handlers to wait for a week says so."""
    keep = keeping(tmp_path, retry={"attempts": 3, "base": "1s"})
    assert keep.retry == Backoff(3, 1.0, 600.0)
    run = await run_handler(keep, event(outputs=["http://127.0.0.1:1/x.mp4"]))
    assert run.state is DispatchState.DEAD
    assert len(run.attempts) == 3

"""Who waits for the ledger is woken: at once by this process, on its own event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from receiver.stores.sqlite import SQLiteStore
from submitter.ledger.base import Ledger
from submitter.ledger.sqlite import SQLiteLedger
from submitter.storage.notify import Subscribers
from tests.support.events import PLAN, event
from tests.support.opening import opened
from tests.support.submissions import NOW, accepted, intended, prediction, result

FAR = 3600.0
"""A poll that no test waits for."""


class Ear:
    """Counts wakes, and waits for the next."""

    def __init__(self) -> None:
        self.count = 0
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """To be given to `subscribe`."""
        self.count += 1
        self._woken.set()

    async def next(self) -> None:
        """Wait for one more; fails where none comes."""
        async with asyncio.timeout(30):
            await self._woken.wait()
        self._woken.clear()


async def listening(ledger: Ledger, *, first: bool = True) -> tuple[Ear, Callable[[], None]]:
    """One who waits; the first in a process after the first look, which always wakes."""
    ear = Ear()
    end = ledger.subscribe(ear.wake)
    if first and isinstance(ledger, SQLiteLedger):
        await ear.next()
    return ear, end


async def test_every_change_of_a_state_wakes(ledger: Ledger) -> None:
    """Intended, doubted, rejected, accepted, adopted, finished."""
    ear, end = await listening(ledger)
    for change in (
        intended(ledger, "k1"),
        ledger.mark_unknown("k1", "lost", NOW, ask_at=NOW),
        ledger.reject("k1", "no", NOW),
        ledger.accept("k1", prediction(), NOW, expected_at=NOW),
        ledger.import_task(prediction("t2"), NOW, expected_at=NOW),
        ledger.finish([result()], NOW),
    ):
        await change
        await ear.next()
    end()


async def test_nobody_is_woken_after_the_end(ledger: Ledger) -> None:
    """Also where the wake was on its way; ending twice does no harm."""
    ear, end = await listening(ledger)
    other, _ = await listening(ledger, first=False)
    before = ear.count
    asked = asyncio.ensure_future(intended(ledger))
    await asyncio.sleep(0)
    end()
    end()
    await asked
    await other.next()

    assert ear.count == before


async def test_closing_ends_the_subscriptions(tmp_path: Path) -> None:
    """A ledger that is closed calls nobody, though others on its file live on."""
    async with (
        opened(SQLiteLedger(tmp_path / "x.db", poll=FAR)) as one,
        opened(SQLiteLedger(tmp_path / "x.db", poll=FAR)) as two,
    ):
        ear, _ = await listening(two)
        other, _ = await listening(one, first=False)
        await two.close()
        before = ear.count
        await intended(one)
        await other.next()

        assert ear.count == before


async def test_other_objects_on_the_file_wake_at_once(tmp_path: Path) -> None:
    """The receiver and a submitter of one process need no poll between them."""
    (tmp_path / "link.db").symlink_to("x.db")
    async with (
        opened(SQLiteLedger(tmp_path / "x.db", poll=FAR)) as one,
        opened(SQLiteLedger(tmp_path / "link.db", poll=FAR)) as two,
    ):
        ear, end = await listening(two)
        await intended(one)
        await ear.next()
        end()


async def test_each_is_woken_on_its_own_loop(tmp_path: Path) -> None:
    """Two event loops in two threads; one that was closed is forgotten."""
    woken: list[int] = []
    ready, go = threading.Event(), threading.Event()

    async def beside() -> None:
        async with opened(SQLiteLedger(tmp_path / "x.db", poll=FAR)) as ledger:
            ear = Ear()
            ledger.subscribe(lambda: woken.append(threading.get_ident()))
            ledger.subscribe(ear.wake)
            await ear.next()
            ready.set()
            await asyncio.to_thread(go.wait, 30)
            await ear.next()

    async def careless(ledger: SQLiteLedger) -> None:
        ledger.subscribe(lambda: woken.append(0))

    thread = threading.Thread(target=lambda: asyncio.run(beside()))
    thread.start()
    async with opened(SQLiteLedger(tmp_path / "x.db", poll=FAR)) as ledger:
        await asyncio.to_thread(asyncio.run, careless(ledger))
        await asyncio.to_thread(ready.wait, 30)
        woken.clear()
        await intended(ledger)
        go.set()
        await asyncio.to_thread(thread.join, 30)

    assert woken
    assert set(woken) == {thread.ident}


async def test_a_closed_loop_is_forgotten() -> None:
    """Whoever ends without a word keeps nobody awake, and breaks nobody's write."""
    subscribers, woken = Subscribers(), asyncio.Event()

    async def careless() -> None:
        subscribers.add(lambda: None)

    await asyncio.to_thread(asyncio.run, careless())
    end = subscribers.add(woken.set)
    subscribers.fire()
    async with asyncio.timeout(30):
        await woken.wait()
    end()
    assert not subscribers.active()


async def test_the_watch_ends_with_the_last_who_waits(tmp_path: Path) -> None:
    """F45: nothing looks at the file where nobody waits."""
    async with opened(SQLiteLedger(tmp_path / "x.db", poll=FAR)) as ledger:
        assert ledger._poller._thread is None
        first, end_first = await listening(ledger)
        _, end_second = await listening(ledger, first=False)
        thread = ledger._poller._thread
        assert thread is not None
        end_first()
        end_second()
        await asyncio.to_thread(thread.join, 30)
        assert not thread.is_alive()

        again, end = await listening(ledger)
        await intended(ledger)
        await again.next()
        end()
        assert first.count


async def test_the_inbox_s_commits_wake_nobody(tmp_path: Path) -> None:
    """They change the file, and no submission."""
    async with opened(SQLiteLedger(tmp_path / "x.db", poll=0.001)) as ledger:
        store = SQLiteStore(ledger.path)
        await store.open()
        ear, end = await listening(ledger)
        for n in range(5):
            await store.add(event(f"task-{n}"), PLAN)
            await ledger.postpone("no", NOW)
        before = ear.count
        await intended(ledger)
        await ear.next()

        assert (before, ear.count) == (1, 2)
        end()
        await store.close()


async def test_a_failing_watch_wakes_so_that_somebody_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F20: whoever asks is told what is wrong, and all goes on when it is over."""
    path = tmp_path / "x.db"
    async with opened(SQLiteLedger(path, poll=0.001)) as ledger:
        await accepted(ledger)
        path.rename(tmp_path / "away.db")
        ear = Ear()
        end = ledger.subscribe(ear.wake)
        for _ in range(3):
            await ear.next()
        (tmp_path / "away.db").rename(path)
        await ledger.finish([result()], NOW)
        await ear.next()
        end()

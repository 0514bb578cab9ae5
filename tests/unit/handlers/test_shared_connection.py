"""One connection for many runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from receiver.errors import Retry
from receiver.handlers.brokers.connection import SharedConnection, safe_reason


class Peer:
    """Gives connections, which are numbers, when it is told to."""

    def __init__(self) -> None:
        self.made = 0
        self.ended: list[int] = []
        self.open = asyncio.Event()
        self.open.set()
        self.failing: Exception | None = None
        self.shared = SharedConnection("there", self.connect, self.end)

    async def connect(self) -> int:
        self.made += 1
        number = self.made
        await self.open.wait()
        if self.failing:
            raise self.failing
        return number

    async def end(self, number: int) -> None:
        self.ended.append(number)


async def test_all_wait_for_one_connection() -> None:
    """It is made when the first asks, and kept."""
    peer = Peer()
    assert await asyncio.gather(*(peer.shared.get() for _ in range(5))) == [1] * 5
    assert await peer.shared.get() == 1
    await peer.shared.close()
    assert (peer.made, peer.ended) == (1, [1])


async def test_one_that_failed_is_not_kept() -> None:
    """All who waited are told, and the next tries again."""
    peer = Peer()
    peer.failing = Retry("no")
    came = await asyncio.gather(*(peer.shared.get() for _ in range(3)), return_exceptions=True)
    assert [str(each) for each in came] == ["no"] * 3
    peer.failing = None
    assert await peer.shared.get() == 2
    await peer.shared.close()


async def test_who_runs_out_of_time_leaves_it_to_the_others() -> None:
    """F24: one run's end is not the end of the connection that others wait for."""
    peer = Peer()
    peer.open.clear()
    other = asyncio.create_task(peer.shared.get())
    with pytest.raises(Retry, match=r"^there: no confirmation in time$"):
        await peer.shared.confirmed(0.0, peer.shared.get())
    peer.open.set()
    assert await other == 1
    await peer.shared.close()
    assert peer.made == 1


async def test_a_broken_one_is_replaced() -> None:
    """Only once, however many say so; and it is ended too."""
    peer = Peer()
    first = await peer.shared.get()
    peer.shared.drop(first)
    peer.shared.drop(first)
    assert await peer.shared.get() == 2
    peer.shared.drop(first)
    assert await peer.shared.get() == 2
    await peer.shared.close()
    assert sorted(peer.ended) == [1, 2]


async def test_close_ends_one_that_is_being_made() -> None:
    """Whoever waits for it is to be tried again, and the next makes another."""
    peer = Peer()
    peer.open.clear()
    waiting = asyncio.create_task(peer.shared.get())
    while not peer.made:
        await asyncio.sleep(0)
    await peer.shared.close()
    with pytest.raises(Retry, match="the connection was closed"):
        await waiting
    peer.open.set()
    assert await peer.shared.get() == 2
    await peer.shared.close()
    await peer.shared.close()


async def test_one_that_does_not_end_well_has_ended() -> None:
    """What a broken connection says at its end is no matter."""

    async def end(_: int) -> None:
        raise OSError

    shared = SharedConnection("there", Peer().connect, end)
    await shared.get()
    assert await shared.close() is None  # type: ignore[func-returns-value]


async def test_a_connection_that_does_not_come_is_given_up() -> None:
    """F24: in its own time, whoever waits."""
    never: Callable[[], Awaitable[int]] = asyncio.Event().wait
    shared = SharedConnection("there", never, Peer().end, connect_timeout=0.01)
    with pytest.raises(Retry, match=r"^there: no connection within 0\.01 s$"):
        await shared.get()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "Connection refused"),
        (OSError("redis://u:s3cret@h"), "OSError"),
        (TimeoutError(), "no answer in time"),
        (ValueError("s3cret"), "ValueError"),
    ],
)
def test_a_reason_shows_no_address(error: Exception, words: str) -> None:
    """F16: a library's own words may hold a URL."""
    assert safe_reason(error) == words

"""What concurrent runs send together."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

import pytest

from receiver.errors import Retry
from receiver.handlers.brokers.batching import SendBatcher


class Place:
    """Takes batches of numbers, when it is told to, and answers with their doubles."""

    def __init__(self, most: int = 3, calls: int = 1, room: float = math.inf) -> None:
        self.calls: list[list[int]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.batches: SendBatcher[int, int] = SendBatcher(
            self.send,
            max_items=most,
            max_calls=calls,
            item_size=lambda number: number,
            max_bytes=room,
        )

    async def send(self, numbers: Sequence[int]) -> list[int | Exception]:
        self.calls.append(list(numbers))
        await self.open.wait()
        if 13 in numbers:
            raise ConnectionError
        return [Retry(str(number)) if number == 7 else number * 2 for number in numbers]

    async def all(self, *numbers: int) -> list[int | BaseException]:
        return await asyncio.gather(*map(self.batches.put, numbers), return_exceptions=True)


async def test_what_comes_together_goes_together() -> None:
    """As many as go into a call; each gets its own answer."""
    place = Place()
    assert await place.all(1, 2, 3, 4) == [2, 4, 6, 8]
    assert place.calls == [[1, 2, 3], [4]]


async def test_one_alone_goes_at_once() -> None:
    """It waits for no company, also right after another."""
    place = Place()
    assert [await place.batches.put(number) for number in (1, 2)] == [2, 4]
    assert place.calls == [[1], [2]]


async def test_one_that_was_refused_fails_alone() -> None:
    """The others of its call are done."""
    came = await Place().all(1, 7, 2)
    assert (came[0], str(came[1]), came[2]) == (2, "7", 4)


async def test_a_call_that_fails_fails_all_of_it() -> None:
    """And nobody else."""
    came = await Place().all(1, 13, 2, 3)
    assert [type(each) for each in came] == [ConnectionError, ConnectionError, ConnectionError, int]


async def test_what_does_not_fit_goes_with_the_next() -> None:
    """One that is too large by itself goes alone."""
    place = Place(room=10)
    await place.all(6, 4, 1, 20, 2)
    assert place.calls == [[6, 4], [1], [20], [2]]


async def test_several_calls_are_on_their_way() -> None:
    """As many as may; what comes then waits for the first that is back."""
    place = Place(most=1, calls=2)
    place.open.clear()
    runs = [asyncio.create_task(place.batches.put(number)) for number in range(4)]
    while len(place.calls) < 2:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert place.calls == [[0], [1]]
    place.open.set()
    assert await asyncio.gather(*runs) == [0, 2, 4, 6]


async def test_a_cancelled_run_is_not_sent() -> None:
    """F24: unless it is on its way already; its answer is then nobody's."""
    place = Place()
    place.open.clear()
    first = asyncio.create_task(place.batches.put(1))
    while not place.calls:
        await asyncio.sleep(0)
    second, third = (asyncio.create_task(place.batches.put(number)) for number in (2, 3))
    await asyncio.sleep(0)
    first.cancel()
    second.cancel()
    place.open.set()
    assert await third == 6
    assert place.calls == [[1], [3]]


async def test_close_gives_up_what_is_there() -> None:
    """All are to be tried again; it works again after that."""
    place = Place(most=1)
    place.open.clear()
    runs = [asyncio.create_task(place.batches.put(number)) for number in range(2)]
    while not place.calls:
        await asyncio.sleep(0)
    await place.batches.close()
    for run in runs:
        with pytest.raises(Retry, match="closed"):
            await run
    place.open.set()
    assert await place.batches.put(4) == 8
    await place.batches.close()

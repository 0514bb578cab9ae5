"""The cork: what one turn writes goes out in one piece, in order, and all of it."""

from __future__ import annotations

import asyncio
from typing import Any

from receiver.cli.cork import Cork, CorkedProtocol


class Wire(asyncio.Transport):
    """A transport that notes what it is asked."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.calls: list[bytes | str] = []

    def write(self, data: Any) -> None:
        self.calls.append(bytes(data))

    def close(self) -> None:
        self.calls.append("close")

    def is_closing(self) -> bool:
        return "close" in self.calls


async def test_two_writes_are_one() -> None:
    """The head and the body of a response go out together, at once."""
    wire = Wire()
    cork = Cork(wire)
    cork.write(b"head ")
    cork.write(b"body")
    assert wire.calls == [b"head body"]


async def test_a_single_write_goes_out_at_the_end_of_the_turn() -> None:
    """A head whose body is not there yet is not held back longer than that."""
    wire = Wire()
    Cork(wire).write(b"head")
    assert wire.calls == []
    await asyncio.sleep(0)
    assert wire.calls == [b"head"]


async def test_many_writes_keep_their_order() -> None:
    """Whatever the number of writes and turns, the bytes are the same."""
    wire = Wire()
    cork = Cork(wire)
    for number in range(7):
        cork.write(b"%d" % number)
        if number == 4:
            await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert b"".join(each for each in wire.calls if isinstance(each, bytes)) == b"0123456"


async def test_closing_sends_what_is_held_first() -> None:
    """A connection that ends after its answer ends after all of it."""
    wire = Wire()
    cork = Cork(wire)
    cork.write(b"answer")
    cork.close()
    await asyncio.sleep(0)
    assert wire.calls == [b"answer", "close"]


async def test_all_else_is_the_transport_s() -> None:
    """What the server asks beside writing is answered by the real transport."""
    wire = Wire()
    cork = Cork(wire)
    assert cork.get_extra_info("peername") == ("127.0.0.1", 1)
    assert not cork.is_closing()
    assert issubclass(CorkedProtocol, asyncio.Protocol)

"""A pipeline handler as the loading makes it, with a context for each of its runs."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, Self

from receiver.handlers.base import Context
from receiver.handlers.loading import load_section
from tests.support.events import event


class Handler:
    """One, by its entry point and settings; closed at the end."""

    def __init__(self, use: str, settings: dict[str, Any], name: str = "pipe") -> None:
        self.installed = load_section(name, {"use": use, **settings})

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def __call__(self, subject: str = "task-1", seconds: float = 10.0, **changes: Any) -> Any:
        happened = replace(event(), subject=subject, id=f"wavespeed:{subject}:completed", **changes)
        name = self.installed.name
        context = Context(f"{happened.id}/{name}", name, 1, time.time() + seconds)
        return await self.installed.handle(happened, context)

    async def close(self) -> None:
        assert self.installed.close is not None
        await self.installed.close()

    async def check(self) -> str:
        assert self.installed.check is not None
        return await self.installed.check()

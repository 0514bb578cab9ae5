"""What the simulator's suites share: one over real HTTP, and who asks it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from submitter.simulator import Faults, Simulator

MODEL = "kwaivgi/kling-v2.1-i2v-standard"
INPUT = {"prompt": "a lighthouse at dusk", "image": "https://example.com/first.png"}


class Asker(httpx.AsyncClient):
    """Asks the API, each thing with one line."""

    async def submit(self, webhook: str | None = None, **more: Any) -> httpx.Response:
        params = {"webhook": webhook} if webhook else {}
        return await self.post(f"api/v3/{MODEL}", params=params, json={**INPUT, **more})

    async def submitted(self, webhook: str | None = None, **more: Any) -> str:
        """The new task's id."""
        id: str = data(await self.submit(webhook, **more))["id"]
        return id

    async def result(self, id: str) -> httpx.Response:
        return await self.get(f"api/v3/predictions/{id}/result")

    async def history(self, **query: Any) -> list[dict[str, Any]]:
        """The items of a page."""
        whole = {"page": 1, "page_size": 100, **query}
        items: list[dict[str, Any]] = data(await self.post("api/v3/predictions", json=whole))[
            "items"
        ]
        return items


def data(answer: httpx.Response) -> dict[str, Any]:
    """What the envelope of a good answer holds."""
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["code"] == 200
    found: dict[str, Any] = body["data"]
    return found


@asynccontextmanager
async def simulated(
    faults: str = "", *, seed: int = 1, **options: Any
) -> AsyncIterator[tuple[Simulator, Asker]]:
    """A simulator, and a client of it. Its clock stands still: tasks get older by `forward`."""
    now = time.time()
    options = {"clock": lambda: now, **options}
    async with (
        Simulator(faults=Faults.parse(faults, seed), **options) as sim,
        Asker(
            base_url=f"{sim.url}/",
            headers={"Authorization": "Bearer k"},
            timeout=30,
            trust_env=False,
            verify=False,
        ) as api,
    ):
        yield sim, api

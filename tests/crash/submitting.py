"""A submitter that kills itself at a named point: `submitting.py POINT KEY`, settings as usual."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping

import httpx

from submitter import WaveSpeed
from submitter.prediction import JSON, Prediction

MODEL = "kwaivgi/kling-v2.1-i2v-standard"


def die() -> None:
    """No handler, no `finally`, no flush."""
    os.kill(os.getpid(), signal.SIGKILL)


class Doomed(WaveSpeed):
    """A client that does not live past its point."""

    def __init__(self, point: str) -> None:
        super().__init__()
        self._point = point

    async def post(
        self, model: str, input: Mapping[str, JSON], webhook: str | None, *, timeout: float
    ) -> Prediction:
        """The billed request."""
        if self._point == "before-post":
            die()
        if self._point == "before-answer":
            asyncio.get_running_loop().create_task(self._die_when_billed())
        prediction = await super().post(model, input, webhook, timeout=timeout)
        if self._point == "before-record":
            die()
        return prediction

    async def _die_when_billed(self) -> None:
        async with httpx.AsyncClient(base_url=os.environ["WAVESPEED_BASE_URL"]) as http:
            while not (await http.get("/simulator/bill")).json()["submits"]:
                await asyncio.sleep(0.01)
        die()


async def main(point: str, key: str) -> None:
    """Submit, wait, and say what came of it."""
    async with Doomed(point) as wave:
        image = f"{os.environ['WAVESPEED_BASE_URL']}/first-frame.png"
        prediction = await wave.run(MODEL, prompt="a lighthouse", image=image, key=key)
    print(json.dumps({"id": prediction.id, "status": prediction.status}))  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

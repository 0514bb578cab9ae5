"""A load generator: keeps connections busy with signed webhooks, and says how it went.

A program of its own, so that what it costs is not measured. Requests are made before the clock
runs; each connection sends its next one when the answer to the last has come.

    python load.py --port 8080 --path /webhooks/wavespeed --count 20000 --connections 64
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import hmac
import json
import random
import sys
import time
from collections import Counter
from itertools import cycle
from typing import Any

SECRET = "whsec_YmVuY2g="


def requests(path: str, count: int, distinct: int, seed: int) -> list[bytes]:
    """Signed webhooks of completed predictions, about 700 bytes each.

    Args:
        path: of the receiver's source.
        count: how many.
        distinct: how many different events they are; the others repeat one of them.
        seed: of the task ids.
    """
    rng = random.Random(seed)
    key = SECRET.removeprefix("whsec_").encode()
    made = []
    for _ in range(distinct):
        task = f"{rng.getrandbits(128):032x}"
        body = json.dumps(
            {
                "id": task,
                "model": "kwaivgi/kling-v2.1-i2v-standard",
                "input": {"prompt": "a lighthouse at dusk, slow dolly in, " * 4, "duration": 5},
                "outputs": [f"https://cdn.example.com/out/{task}.mp4"],
                "urls": {"get": f"https://api.wavespeed.ai/api/v3/predictions/{task}/result"},
                "has_nsfw_contents": [False],
                "status": "completed",
                "created_at": "2026-03-01T09:12:48.239112031Z",
                "error": "",
                "executionTime": 61234,
                "timings": {"inference": 61234},
            }
        ).encode()
        now = b"%d" % time.time()
        mac = hmac.new(key, task.encode() + b"." + now + b"." + body, hashlib.sha256)
        made.append(
            b"POST %b HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
            b"webhook-id: %b\r\nwebhook-timestamp: %b\r\nwebhook-signature: v3,%b\r\n"
            b"content-length: %d\r\n\r\n%b"
            % (path.encode(), task.encode(), now, mac.hexdigest().encode(), len(body), body)
        )
    repeated = [rng.choice(made) for _ in range(count - distinct)]
    # The first time of each comes before its repetitions, as it is with a sender's retries.
    return made + repeated


class Connection(asyncio.Protocol):
    """One connection that is never idle."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._buffer = b""
        self._sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data if self._buffer else data
        head = data.find(b"\r\n\r\n")
        if head >= 0:
            at = data.find(b"content-length: ", 0, head)
            size = int(data[at + 16 : data.find(b"\r", at)]) if at >= 0 else 0
            if len(data) >= head + 4 + size:
                self._buffer = b""
                self._load.answered(data[9:12], time.perf_counter() - self._sent_at)
                self._send()
                return
        self._buffer = data

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._load.done.done():
            self._load.done.set_exception(exc or ConnectionError("the server closed"))

    def _send(self) -> None:
        request = next(self._load.left, None)
        if request is not None:
            self._sent_at = time.perf_counter()
            self._transport.write(request)  # type: ignore[attr-defined]


class Load:
    """All connections of one run, and what they saw."""

    def __init__(self, made: list[bytes]) -> None:
        self.left = iter(made)
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._open = len(made)
        self._seconds: list[float] = []
        self._statuses: Counter[str] = Counter()

    def answered(self, status: bytes, seconds: float) -> None:
        self._statuses[status.decode()] += 1
        self._seconds.append(seconds)
        self._open -= 1
        if not self._open:
            self.done.set_result(None)

    def figures(self, elapsed: float) -> dict[str, Any]:
        ordered = sorted(self._seconds)
        return {
            "rate": len(ordered) / elapsed,
            "p50": ordered[len(ordered) // 2],
            "p99": ordered[len(ordered) * 99 // 100],
            "statuses": dict(self._statuses),
        }


async def run(ports: list[int], made: list[bytes], connections: int) -> dict[str, Any]:
    """Send all requests to 127.0.0.1, to all ports alike, and measure."""
    load = Load(made)
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    for _, port in zip(range(connections), cycle(ports), strict=False):
        await loop.create_connection(lambda: Connection(load), "127.0.0.1", port)
    await load.done
    return load.figures(time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, action="append", required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--distinct", type=int)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    made = requests(args.path, args.count, args.distinct or args.count, args.seed)
    try:
        import uvloop
    except ImportError:
        figures = asyncio.run(run(args.port, made, args.connections))
    else:
        figures = uvloop.run(run(args.port, made, args.connections))
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()

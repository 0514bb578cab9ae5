"""An archive by itself: python archive_baseline.py FOLDER.

It keeps the output whose URL is on each line of its input, and prints how long that took, and the
peak of its memory so far.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import uvloop

from receiver.handlers.archive.handler import create
from receiver.testing import context, event


def peak() -> int:
    """Resident memory of this process at most so far, in bytes."""
    status = Path("/proc/self/status").read_text("utf-8")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


async def main(folder: str) -> None:
    settings = {"to": folder, "name": "{task}{index}", "manifest": "{task}", "max_size": "1GB"}
    handler = create("keep", {**settings, "allow": ["127.0.0.1"]})
    lines = iter(sys.stdin.readline, "")
    for number, line in enumerate(lines):
        made = event(outputs=[line.strip()], id=f"task-{number}")
        started = time.perf_counter()
        await handler(made, context(made, timeout=600.0))
        seconds = time.perf_counter() - started
        print(json.dumps({"seconds": seconds, "peak": peak()}), flush=True)
    await handler.close()


# As `wavehook serve` runs.
uvloop.run(main(sys.argv[1]))

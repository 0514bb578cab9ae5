"""A handler that prints the event's id and when it began, for `wavehook worker --handlers`."""

from __future__ import annotations

import sys
import time

from receiver import Context, Event, on


@on("prediction.*")
async def note(event: Event, context: Context) -> None:
    """Print."""
    sys.stdout.write(f"{event.id} {time.monotonic()}\n")
    sys.stdout.flush()

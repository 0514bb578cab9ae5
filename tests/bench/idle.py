"""Two handlers that do nothing, for `wavehook serve --handlers`."""

from __future__ import annotations

from receiver import Context, Event, on


@on("prediction.*")
async def first(event: Event, context: Context) -> None:
    """Do nothing."""


@on("prediction.completed", models=["kwaivgi/*"])
async def second(event: Event, context: Context) -> None:
    """Do nothing."""

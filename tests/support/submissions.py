"""Intents and predictions that the ledger's suites share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from submitter.ledger.base import Entry, Intent, IntentWritten, Ledger, Limits, Result
from submitter.prediction import JSON, Prediction

NOW = 1_800_000_000.0
MODEL = "kwaivgi/kling-v2.1-i2v-standard"
UNLIMITED = Limits()


def intent(key: str = "k1", **changes: Any) -> Intent:
    """A submission that is about to go out."""
    return replace(
        Intent(
            key=key,
            model=MODEL,
            input={"prompt": "a lighthouse, été 🌊", "duration": 5, "loras": [{"scale": 0.5}]},
            digest="d1",
            until=NOW + 60,
            context={"user": 7, "lone": "\ud800"},
            cost=0.28,
        ),
        **changes,
    )


def prediction(task_id: str = "t1", status: str = "completed", **fields: JSON) -> Prediction:
    """A task as the API tells of it."""
    found = Prediction.parse({"id": task_id, "status": status, "model": MODEL, **fields})
    assert found is not None
    return found


def result(task_id: str = "t1", key: str | None = None, *, delivered: bool = False) -> Result:
    """That a task is completed."""
    return Result(prediction(task_id, outputs=["https://x/1.mp4"]), key, delivered)


async def intended(ledger: Ledger, key: str = "k1", now: float = NOW, **changes: Any) -> Entry:
    """A fresh entry."""
    answer = await ledger.intend(intent(key, **changes), UNLIMITED, now)
    assert isinstance(answer, IntentWritten)
    assert answer.fresh
    return answer.entry


async def accepted(
    ledger: Ledger,
    key: str = "k1",
    task_id: str = "t1",
    *,
    now: float = NOW,
    guessed: bool = False,
    **changes: Any,
) -> Entry:
    """An entry whose task is known."""
    await intended(ledger, key, now, **changes)
    created = prediction(task_id, "created")
    return await ledger.accept(key, created, now + 1, expected_at=now + 300, guessed=guessed)


async def only(ledger: Ledger, key: str = "k1") -> Entry:
    """An entry as it is stored."""
    return (await ledger.find([key]))[key]

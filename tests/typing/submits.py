"""What a type checker must make of the submitter's public API; read by mypy, never run.

Every `type: ignore` here is a mistake that must be found: mypy runs with unused ignores as errors.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import assert_type

import submitter
from submitter import (
    KlingImageToVideo,
    KlingStartEndFrame,
    KlingTextToVideo,
    Limits,
    MemoryLedger,
    Model,
    Prediction,
    Price,
    Seal,
    SQLiteLedger,
    StillRunning,
    Submission,
    SubmissionUnknown,
    TaskFailed,
    TypedInput,
    WaveSpeed,
)

MODEL = "kwaivgi/kling-v2.1-i2v-standard"


async def run(wave: WaveSpeed) -> None:
    done = await wave.run(MODEL, prompt="waves", image="first.png", duration=5)
    assert_type(done, Prediction)
    assert_type(done.succeeded, bool)
    assert_type(done.raise_for_status(), Prediction)
    assert_type(done.outputs, tuple[str, ...])
    await wave.run(MODEL, {"prompt": "waves", "image": Path("first.png")}, timeout=600)
    await wave.run(MODEL, prompt="waves", image=b"\x89PNG", context={"user": [7]}, max_cost=1)
    await wave.run(MODEL, timeout="600s")  # type: ignore[arg-type]
    await wave.run(MODEL, "waves")  # type: ignore[arg-type]
    await wave.run(MODEL, context=b"no JSON")  # type: ignore[arg-type]
    await wave.run()  # type: ignore[call-arg]


async def submit(wave: WaveSpeed) -> None:
    submission = await wave.submit(MODEL, {"prompt": "waves"}, key="order-7", webhook=False)
    assert_type(submission, Submission)
    assert_type(submission.key, str)
    assert_type(submission.model, str)
    assert_type(submission.task_id, str | None)
    assert_type(submission.prediction, Prediction | None)
    assert_type(await submission.result(timeout=30), Prediction)
    submission.key = "other"  # type: ignore[misc]
    await wave.submit(MODEL, key=7)  # type: ignore[arg-type]


async def typed(wave: WaveSpeed) -> None:
    first = KlingImageToVideo(prompt="waves", image="first.png", duration=10, tier="pro")
    both = KlingStartEndFrame(prompt="waves", image=b"", end_image=Path("last.png"))
    text = KlingTextToVideo(prompt="waves", aspect_ratio="9:16")
    inputs: list[TypedInput] = [first, both, text]
    for each in inputs:
        assert_type(await wave.run(each), Prediction)
    assert_type(first.model, str)
    assert_type(first.input(), dict[str, object])
    KlingImageToVideo(prompt="waves", image="first.png", duration=7)  # type: ignore[arg-type]
    KlingImageToVideo(prompt="waves", image="first.png", tier="best")  # type: ignore[arg-type]
    KlingImageToVideo(prompt="waves")  # type: ignore[call-arg]
    KlingTextToVideo(prompt="waves", aspect_ratio="2:1")  # type: ignore[arg-type]


class Own:
    """A typed input of somebody else's."""

    model = "vendor/model"

    def input(self) -> dict[str, object]:
        return {"prompt": "waves"}


async def others(wave: WaveSpeed) -> None:
    await wave.run(Own())
    await wave.run(object())  # type: ignore[arg-type]


async def wait(wave: WaveSpeed) -> None:
    assert_type(await wave.wait("order-7", timeout=60), Prediction)
    assert_type(wave.stream(follow=True), AsyncGenerator[Prediction, None])
    async for prediction in wave.stream():
        assert_type(prediction, Prediction)
    await wave.stream()  # type: ignore[misc]


async def calls(wave: WaveSpeed) -> None:
    async for past in wave.history(model=MODEL, created_after=0.0):
        assert_type(past, Prediction)
    assert_type(await wave.result("id"), Prediction)
    assert_type(await wave.models(), list[Model])
    assert_type(await wave.price(MODEL, {"prompt": "waves"}), Price)
    assert_type(await wave.balance(), float)
    assert_type(await wave.upload(b"", filename="a.png", content_type="image/png"), str)
    assert_type(await wave.webhook_secret(), str)


async def main() -> None:
    limits = Limits(rate=10, in_flight=3)
    async with WaveSpeed("key", ledger=MemoryLedger(), limits=limits, webhook_url="") as wave:
        assert_type(wave, WaveSpeed)
        await wave.balance()
    WaveSpeed(seal=Seal(["key"]), ledger=SQLiteLedger("wavehook.db"))
    WaveSpeed(ledger="wavehook.db")  # type: ignore[arg-type]
    WaveSpeed(timeout=5)  # type: ignore[call-arg]
    submitter.nonsense  # type: ignore[attr-defined] # noqa: B018


def told(error: StillRunning | SubmissionUnknown | TaskFailed) -> str | None:
    if isinstance(error, TaskFailed):
        return error.prediction.error
    return error.key

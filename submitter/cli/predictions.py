"""A prediction, as commands print it."""

from __future__ import annotations

import typer

from submitter.prediction import JSON, Prediction
from submitter.printing import plain


def fields(prediction: Prediction) -> dict[str, JSON]:
    """For programs."""
    created = prediction.created_at
    return {
        "id": prediction.id,
        "status": prediction.status,
        "model": prediction.model,
        "outputs": list(prediction.outputs),
        "error": prediction.error,
        "code": prediction.code,
        "has_nsfw_contents": list(prediction.has_nsfw_contents),
        "created_at": created.isoformat() if created else None,
        "inference_ms": prediction.inference_ms,
    }


def show(prediction: Prediction, *, name: str | None = None) -> None:
    """For a person: how it ended, and an output a line.

    Args:
        prediction: the task.
        name: by which the person knows it; its id where None.
    """
    typer.echo(f"{plain(name or prediction.id)} {plain(prediction.status)}")
    for url in prediction.outputs:
        typer.echo(plain(url))
    if prediction.error:
        code = f" (code {prediction.code})" if prediction.code else ""
        typer.echo(f"{plain(prediction.error)}{code}")

"""Serverless platforms, detected by the environment variables that they set.

- AWS Lambda: https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
- Vercel: https://vercel.com/docs/environment-variables/system-environment-variables
- Cloud Run: https://cloud.google.com/run/docs/container-contract#env-vars
- Azure Functions: https://learn.microsoft.com/azure/azure-functions/functions-app-settings
- Modal: https://modal.com/docs/guide/environment_variables
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Platform:
    """One serverless platform.

    Attributes:
        name: name in messages.
        signs: environment variables; each of them identifies the platform.
        disk: end of a sentence about its disk, for the refusal of a SQLite database.
        freezes: nothing runs between a response and the next request.
    """

    name: str
    signs: tuple[str, ...]
    disk: str
    freezes: bool = False


# Vercel goes first: its functions run on Lambda.
PLATFORMS = (
    Platform(
        "Vercel",
        ("VERCEL",),
        "is read-only except /tmp, which is private to each instance and lost with it",
        freezes=True,
    ),
    Platform(
        "AWS Lambda",
        ("AWS_LAMBDA_FUNCTION_NAME",),
        "is read-only except /tmp, which is private to each instance and lost with it",
        freezes=True,
    ),
    Platform(
        "Cloud Run",
        ("K_SERVICE", "CLOUD_RUN_JOB"),
        "is memory of one instance, and is lost at its end",
    ),
    Platform(
        "Azure Functions",
        ("FUNCTIONS_WORKER_RUNTIME",),
        "is lost with the instance, or is a network share, on which SQLite's locks do not hold",
    ),
    Platform(
        "Modal",
        ("MODAL_IS_REMOTE", "MODAL_TASK_ID"),
        "is lost with the container",
    ),
)


def platform_of(environ: Mapping[str, str]) -> Platform | None:
    """The platform that set these variables; None on any other machine."""
    for platform in PLATFORMS:
        if any(environ.get(sign) for sign in platform.signs):
            return platform
    return None

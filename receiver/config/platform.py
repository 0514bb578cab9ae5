"""The serverless platforms whose own variables tell that the process runs on one of them.

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
    """One of them.

    Attributes:
        name: as its users call it.
        signs: variables; each says that it is this one.
        disk: what becomes of its disk, for a sentence about a database on it.
        freezes: nothing runs between a reply and the next request.
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
        "is read-only but for /tmp, which each instance has for itself and loses at its end",
        freezes=True,
    ),
    Platform(
        "AWS Lambda",
        ("AWS_LAMBDA_FUNCTION_NAME",),
        "is read-only but for /tmp, which each instance has for itself and loses at its end",
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
    """The platform that has set these variables; None on a machine of one's own."""
    for platform in PLATFORMS:
        if any(environ.get(sign) for sign in platform.signs):
            return platform
    return None

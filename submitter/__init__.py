"""Wavehook's submitter: talks to the WaveSpeedAI API.

Every public name is imported when it is first used, so that `import submitter` does no work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from submitter.client import Submission, WaveSpeed
    from submitter.errors import (
        ApiError,
        AuthFailed,
        BadInput,
        BadSettings,
        ContextTooLarge,
        Fault,
        InsufficientBalance,
        NotFound,
        RateLimited,
        SubmissionUnknown,
        SubmitterError,
        Unavailable,
    )
    from submitter.prediction import JSON, Prediction, Status
    from submitter.seal import Seal, Sealed

__all__ = [
    "JSON",
    "ApiError",
    "AuthFailed",
    "BadInput",
    "BadSettings",
    "ContextTooLarge",
    "Fault",
    "InsufficientBalance",
    "NotFound",
    "Prediction",
    "RateLimited",
    "Seal",
    "Sealed",
    "Status",
    "Submission",
    "SubmissionUnknown",
    "SubmitterError",
    "Unavailable",
    "WaveSpeed",
]

_HOMES = {
    "JSON": "prediction",
    "Prediction": "prediction",
    "Seal": "seal",
    "Sealed": "seal",
    "Status": "prediction",
    "Submission": "client",
    "WaveSpeed": "client",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value

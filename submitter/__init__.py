"""Wavehook's submitter: talks to the WaveSpeedAI API.

Every public name is imported when it is first used, so that `import submitter` does no work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from submitter.api.models import Model, Price
    from submitter.catalogue.kling import (
        KlingImageToVideo,
        KlingStartEndFrame,
        KlingTextToVideo,
        TypedInput,
    )
    from submitter.client import Submission, WaveSpeed
    from submitter.errors import (
        ApiError,
        AuthFailed,
        BadInput,
        BadSettings,
        ContextTooLarge,
        Fault,
        InsufficientBalance,
        LedgerMismatch,
        LedgerUnavailable,
        NotFound,
        OverBudget,
        RateLimited,
        StillRunning,
        SubmissionUnknown,
        SubmitterError,
        Unavailable,
    )
    from submitter.ledger.base import Limits
    from submitter.ledger.memory import MemoryLedger
    from submitter.ledger.sqlite import SQLiteLedger
    from submitter.prediction import JSON, Prediction, Status, TaskFailed
    from submitter.submit.context_token import Seal, Sealed

__all__ = [
    "JSON",
    "ApiError",
    "AuthFailed",
    "BadInput",
    "BadSettings",
    "ContextTooLarge",
    "Fault",
    "InsufficientBalance",
    "KlingImageToVideo",
    "KlingStartEndFrame",
    "KlingTextToVideo",
    "LedgerMismatch",
    "LedgerUnavailable",
    "Limits",
    "MemoryLedger",
    "Model",
    "NotFound",
    "OverBudget",
    "Prediction",
    "Price",
    "RateLimited",
    "SQLiteLedger",
    "Seal",
    "Sealed",
    "Status",
    "StillRunning",
    "Submission",
    "SubmissionUnknown",
    "SubmitterError",
    "TaskFailed",
    "TypedInput",
    "Unavailable",
    "WaveSpeed",
]

if not TYPE_CHECKING:  # a checker would take any name for public
    _HOMES = {
        "JSON": "prediction",
        "KlingImageToVideo": "catalogue.kling",
        "KlingStartEndFrame": "catalogue.kling",
        "KlingTextToVideo": "catalogue.kling",
        "Limits": "ledger.base",
        "MemoryLedger": "ledger.memory",
        "Model": "api.models",
        "Prediction": "prediction",
        "Price": "api.models",
        "SQLiteLedger": "ledger.sqlite",
        "Seal": "submit.context_token",
        "Sealed": "submit.context_token",
        "Status": "prediction",
        "Submission": "client",
        "TaskFailed": "prediction",
        "TypedInput": "catalogue.kling",
        "WaveSpeed": "client",
    }

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
        globals()[name] = value
        return value

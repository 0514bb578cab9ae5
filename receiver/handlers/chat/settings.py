"""Settings that all chat handlers share."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
)

from receiver.handlers.settings import matching
from receiver.outbound.client import web_url

Dotted = Annotated[
    str,
    StringConstraints(max_length=200),
    matching(r"[^.]+(\.[^.]+)*", "a key of the context, with dots between nested keys"),
]
"""A key of the event's context; dots lead into nested tables: `notify.slack`."""

WebUrl = Annotated[str, AfterValidator(web_url)]
"""An http or https URL in a settings model."""


class ChatSettings(BaseModel):
    """Settings that all chat handlers share.

    Attributes:
        targets: further targets by name; their values may be secret.
        target_from: key of the event's context that names one of `targets`.
        user_from: key of the event's context with the requesting user.
        cost_from: key of the event's context with the cost in USD.
        prompt: longest shown prompt, in characters.
        template: text that replaces the standard message.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    targets: dict[str, str] = Field(default_factory=dict, repr=False)
    target_from: Dotted | None = None
    user_from: Dotted = "user"
    cost_from: Dotted = "cost"
    prompt: int = Field(default=300, ge=0, le=1000)
    template: str | None = Field(default=None, repr=False, min_length=1)


Chat = TypeVar("Chat", bound=ChatSettings)

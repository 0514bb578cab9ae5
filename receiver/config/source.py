"""One `[sources.NAME]` section: a sender, how it signs, and its secrets."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, InstanceOf, model_validator

from receiver.config import values
from receiver.config.secret import Secret

NAME = r"[a-z0-9_-]{1,32}"


class SourceSettings(BaseModel):
    """One `[sources.NAME]` section."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    use: Annotated[
        Literal["wavespeed", "standard", "header_hmac", "insecure"],
        Field(description="wavespeed, standard, header_hmac or insecure"),
    ]
    secrets: Annotated[
        tuple[InstanceOf[Secret], ...],
        BeforeValidator(values.secrets),
        Field(description="one secret or more: a list, or one text with commas"),
    ] = ()
    header: Annotated[
        str | None,
        BeforeValidator(values.header_name),
        Field(description="the name of an HTTP header"),
    ] = None
    prefix: Annotated[
        str | None,
        BeforeValidator(values.prefix),
        Field(description="the text before the signature, such as sha256="),
    ] = None
    encoding: Annotated[Literal["hex", "base64"] | None, Field(description="hex or base64")] = None

    @model_validator(mode="after")
    def _fits(self) -> SourceSettings:
        """What belongs together (F15)."""
        if self.use == "insecure" and self.secrets:
            raise ValueError(
                "secrets are set, but `insecure` verifies nothing; use another source, or "
                "remove the secrets"
            )
        if self.use in {"standard", "header_hmac"} and not self.secrets:
            raise ValueError(
                'expected secrets: without one nothing can be verified; set secrets = "env:NAME"'
            )
        if self.use != "header_hmac" and (self.header, self.prefix, self.encoding) != (None,) * 3:
            raise ValueError('header, prefix and encoding belong to use = "header_hmac" only')
        return self

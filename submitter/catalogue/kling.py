"""The Kling 2.1 family as typed inputs, so that a type checker sees what the API would refuse.

Their fields are those of the models' schemas; what is None is left to the API's default.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, get_args

from submitter.errors import BadInput, Fault

Picture: TypeAlias = "str | bytes | Path"
"""An http(s) URL, the path of a local file, or a file's content: PNG or JPEG, at most 10 MB."""

Tier: TypeAlias = Literal["standard", "pro", "master"]


class TypedInput(Protocol):
    """An input that knows its model."""

    @property
    def model(self) -> str:
        """The model's id."""
        ...

    def input(self) -> dict[str, object]:
        """The fields that are given; pictures as they were given."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class KlingImageToVideo:
    """A video that starts from an image: `kwaivgi/kling-v2.1-i2v-standard`, `-pro`, `-master`.

    Args:
        prompt: what happens in the video; at most 2500 characters.
        image: the first frame; at least 300 x 300 pixels.
        negative_prompt: what must not be seen.
        guidance_scale: how closely the video follows the prompt, 0 to 1; by default 0.5.
        duration: seconds; by default 5.
        tier: which of the three models.

    Raises:
        BadInput: the tier does not exist.
    """

    prompt: str = field(repr=False)
    image: Picture = field(repr=False)
    negative_prompt: str | None = field(default=None, repr=False)
    guidance_scale: float | None = None
    duration: Literal[5, 10] | None = None
    tier: Tier = "standard"

    def __post_init__(self) -> None:
        if self.tier not in get_args(Tier):
            raise BadInput([Fault("tier", f"must be one of {', '.join(get_args(Tier))}")])

    @property
    def model(self) -> str:
        """The model's id."""
        return f"kwaivgi/kling-v2.1-i2v-{self.tier}"

    def input(self) -> dict[str, object]:
        """The fields that are given; pictures as they were given."""
        return _given(self, without="tier")


@dataclass(frozen=True, slots=True, kw_only=True)
class KlingStartEndFrame:
    """A video from one image to another: `kwaivgi/kling-v2.1-i2v-pro/start-end-frame`.

    Args:
        prompt: what happens in the video; at most 2500 characters.
        image: the first frame; at least 300 x 300 pixels.
        end_image: the last frame; at least 300 x 300 pixels.
        negative_prompt: what must not be seen.
        guidance_scale: how closely the video follows the prompt, 0 to 1; by default 0.5.
        duration: seconds; by default 5.
    """

    prompt: str = field(repr=False)
    image: Picture = field(repr=False)
    end_image: Picture = field(repr=False)
    negative_prompt: str | None = field(default=None, repr=False)
    guidance_scale: float | None = None
    duration: Literal[5, 10] | None = None

    @property
    def model(self) -> str:
        """The model's id."""
        return "kwaivgi/kling-v2.1-i2v-pro/start-end-frame"

    def input(self) -> dict[str, object]:
        """The fields that are given; pictures as they were given."""
        return _given(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class KlingTextToVideo:
    """A video from text alone: `kwaivgi/kling-v2.1-t2v-master`.

    Args:
        prompt: what happens in the video; at most 2000 characters.
        negative_prompt: what must not be seen.
        guidance_scale: how closely the video follows the prompt, 0 to 1; by default 0.5.
        duration: seconds; by default 5.
        aspect_ratio: width to height; by default 16:9.
    """

    prompt: str = field(repr=False)
    negative_prompt: str | None = field(default=None, repr=False)
    guidance_scale: float | None = None
    duration: Literal[5, 10] | None = None
    aspect_ratio: Literal["16:9", "9:16", "1:1"] | None = None

    @property
    def model(self) -> str:
        """The model's id."""
        return "kwaivgi/kling-v2.1-t2v-master"

    def input(self) -> dict[str, object]:
        """The fields that are given; pictures as they were given."""
        return _given(self)


def _given(typed: Any, without: str = "") -> dict[str, object]:
    values = {each.name: getattr(typed, each.name) for each in fields(typed)}
    return {k: v for k, v in values.items() if k != without and v is not None}

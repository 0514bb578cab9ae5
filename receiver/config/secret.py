"""Text that is not shown."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret among the settings: printing them, or logging them, does not show it (F16)."""

    _text: str = field(repr=False)

    def get_secret_value(self) -> str:
        """The secret itself."""
        return self._text

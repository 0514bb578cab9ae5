"""References among the settings: in texts, in lists, and in several values in one text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from receiver.secret_refs import fetch


class Resolver:
    """Reads references.

    Args:
        environ: the environment.
        cwd: the directory from which relative paths are taken.
    """

    def __init__(self, environ: Mapping[str, str], cwd: Path) -> None:
        self._environ = environ
        self._cwd = cwd

    def resolve(self, label: str, value: object, faults: list[str], *, many: bool = False) -> Any:
        """Put in what references name, also in a list.

        Args:
            label: the setting, as it stands in a fault.
            value: as it was written.
            faults: gets one sentence for each reference that cannot be read.
            many: a text is several values with commas between, and each may be a reference.

        Returns:
            The value; None where it cannot be read.
        """
        if isinstance(value, list):
            return [self.resolve(label, item, faults) for item in value]
        if not isinstance(value, str):
            return value
        parts = value.split(",") if many else [value]
        read = [self._text(label, part, faults) for part in parts]
        return ",".join(part for part in read if part is not None) if None not in read else None

    def _text(self, label: str, written: str, faults: list[str]) -> str | None:
        try:
            found = fetch(written, self._environ, self._cwd)
        except ValueError as error:
            # The reference alone is shown; what stands beside it may be a secret.
            faults.append(f"{label} = {written.strip()!r}: {error}")
            return None
        return written if found is None else found

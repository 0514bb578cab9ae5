"""`env:NAME` and `file:PATH` in place of a value: secrets stay out of the file of settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

MAX_FILE = 64 * 1024
"""Bytes; what is larger is no secret."""


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
        kind, _, rest = written.strip().partition(":")
        try:
            if kind == "env" and rest:
                return _filled(self._environ[rest])
            # file://host/path is a URL, for a handler to read.
            if kind == "file" and rest and not rest.startswith("//"):
                with (self._cwd / rest).open("rb") as file:
                    return _filled(file.read(MAX_FILE + 1).decode().rstrip("\r\n"))
        except (KeyError, ValueError, OSError) as error:
            # The reference alone is shown; what stands beside it may be a secret.
            faults.append(f"{label} = {written.strip()!r}: {_why(error)}")
            return None
        return written


def _filled(text: str) -> str:
    if not text.strip():
        raise ValueError("it is empty; expected a value in it")
    if len(text) > MAX_FILE:
        raise ValueError(f"expected at most {MAX_FILE} bytes")
    return text


def _why(error: KeyError | ValueError | OSError) -> str:
    if isinstance(error, KeyError):
        return "expected this environment variable to be set"
    if isinstance(error, UnicodeDecodeError):
        return "expected a file with UTF-8 text"
    if isinstance(error, OSError):
        return f"expected a file that can be read ({error.strerror or error})"
    return str(error)

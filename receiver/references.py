"""`env:NAME`, `file:PATH` and `ssm:NAME` in place of a value: secrets stay out of the settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

MAX_FILE = 64 * 1024
"""Bytes; what is larger is no secret."""


def fetch(written: str, environ: Mapping[str, str], folder: Path) -> str | None:
    """What a reference stands for; None where the text is no reference.

    Args:
        written: the value as it stands in the settings.
        environ: the environment.
        folder: from which relative paths are taken.

    Raises:
        ValueError: it leads nowhere; the text says what was expected, and never shows a value.
    """
    kind, colon, rest = written.strip().partition(":")
    # file://host/path is a URL, for a handler to read.
    if kind not in ("env", "file", "ssm") or not colon or rest.startswith("//"):
        return None
    if not rest:
        raise ValueError(f"expected a {'path' if kind == 'file' else 'name'} after {kind}:")
    if kind == "ssm":
        # It brings boto3.
        from receiver.parameters import parameter

        text = parameter(rest)
    else:
        text = _variable(rest, environ) if kind == "env" else _content(folder, rest)
    if not text.strip():
        raise ValueError("it is empty; expected a value in it")
    return text


def _variable(name: str, environ: Mapping[str, str]) -> str:
    if name not in environ:
        raise ValueError("expected this environment variable to be set")
    return environ[name]


def _content(folder: Path, path: str) -> str:
    try:
        with (folder / path).open("rb") as file:
            data = file.read(MAX_FILE + 1)
        # Editors and `echo` end a file with a newline that is no part of a secret.
        text = data.decode().rstrip("\r\n")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ValueError(f"expected a file that can be read ({reason})") from None
    # No text, or a NUL in the path; neither error's own text may be shown.
    except ValueError:
        raise ValueError("expected a file of UTF-8 text") from None
    if len(data) > MAX_FILE:
        raise ValueError(f"expected a file of at most {MAX_FILE} bytes")
    return text

"""`env:NAME`, `file:PATH` and `ssm:NAME` in place of a value: secrets stay out of the settings.

Parameters of AWS Systems Manager, for `ssm:NAME` in place of a value.

They are read at the start, so that no secret stands in a function's configuration, which
CloudFormation could fill in from plain parameters only
(https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/dynamic-references-ssm-secure-strings.html).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

LIMIT = 5.0
"""Seconds to connect, and for an answer."""


def parameter(name: str) -> str:
    """The value of a parameter, decrypted; region and credentials are boto3's own.

    Args:
        name: as `/wavehook/database`, or an ARN.

    Raises:
        ValueError: it cannot be read; the text says why, and shows no value.
    """
    try:
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        raise ValueError("expected boto3 to be there; install wavehook[aws]") from None
    try:
        answer = _client().get_parameter(Name=name, WithDecryption=True)
    except ClientError as error:
        reason = error.response.get("Error", {}).get("Code", "Unknown")
    except BotoCoreError as error:
        reason = type(error).__name__
    else:
        value: str = answer["Parameter"]["Value"]
        return value
    raise ValueError(f"expected a parameter that can be read ({reason})")


@cache
def _client() -> Any:
    import boto3
    from botocore.config import Config

    retries = {"mode": "standard", "total_max_attempts": 3}
    return boto3.client(
        "ssm", config=Config(connect_timeout=LIMIT, read_timeout=LIMIT, retries=retries)
    )


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

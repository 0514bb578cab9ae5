"""References in place of a setting's value: `env:NAME`, `file:PATH` and `ssm:NAME`.

They keep secrets out of the settings. `ssm:` names a parameter of AWS Systems Manager, which is
read at the start: CloudFormation can put plain parameters only into a function's configuration
(https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/dynamic-references-ssm-secure-strings.html).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

SSM_TIMEOUT_S = 5.0
"""Seconds to connect to AWS, and for its response."""

MAX_FILE_BYTES = 64 * 1024
"""Size of a `file:` reference; a larger file is not a secret."""


def fetch(written: str, environ: Mapping[str, str], folder: Path) -> str | None:
    """Resolve a reference; None if the text is not one.

    Args:
        written: the value in the settings.
        environ: the environment.
        folder: relative paths begin here.

    Raises:
        ValueError: it cannot be resolved; the text says what was expected, and shows no value.
    """
    kind, colon, rest = written.strip().partition(":")
    # file://host/path is a URL, which a handler may take.
    if kind not in ("env", "file", "ssm") or not colon or rest.startswith("//"):
        return None
    if not rest:
        raise ValueError(f"expected a {'path' if kind == 'file' else 'name'} after {kind}:")
    if kind == "ssm":
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
            data = file.read(MAX_FILE_BYTES + 1)
        # Editors and `echo` end a file with a newline that is not part of a secret.
        text = data.decode().rstrip("\r\n")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ValueError(f"expected a file that can be read ({reason})") from None
    # Not UTF-8, or a NUL in the path; neither error's own text may be shown.
    except ValueError:
        raise ValueError("expected a file of UTF-8 text") from None
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"expected a file of at most {MAX_FILE_BYTES} bytes")
    return text


def parameter(name: str) -> str:
    """The decrypted value of a parameter; boto3 finds region and credentials.

    Args:
        name: as `/wavehook/database`, or an ARN.

    Raises:
        ValueError: it cannot be read; the text says why, and shows no value.
    """
    try:
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        raise ValueError("expected boto3 to be installed: pip install 'wavehook[aws]'") from None
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
        "ssm",
        config=Config(connect_timeout=SSM_TIMEOUT_S, read_timeout=SSM_TIMEOUT_S, retries=retries),
    )

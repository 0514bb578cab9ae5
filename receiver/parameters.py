"""Parameters of AWS Systems Manager, for `ssm:NAME` in place of a value.

They are read at the start, so that no secret stands in a function's configuration, which
CloudFormation could fill in from plain parameters only
(https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/dynamic-references-ssm-secure-strings.html).
"""

from __future__ import annotations

from functools import cache
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

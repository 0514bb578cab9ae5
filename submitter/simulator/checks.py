"""What the vendor refuses, and in which words."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from typing import Any

import httpx
import jsonschema

from submitter.prediction import JSON
from submitter.strict import unfit

MAX_WORDS = 300
"""Characters of a refusal; a validator's own words repeat the value."""


class BadRequest(Exception):
    """The request is refused with 400; the text goes to the sender."""


def read_object(body: bytes) -> dict[str, JSON]:
    """Read a JSON object that can be repeated in an answer.

    Raises:
        BadRequest: it is none.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequest("Invalid JSON body") from None
    if not isinstance(value, dict):
        raise BadRequest("The body must be a JSON object")
    faults, _ = unfit(value)
    if faults:
        raise BadRequest(str(faults[0]))
    return value


def check_input(input: Mapping[str, JSON], schema: Mapping[str, Any]) -> None:
    """Hold an input against its model's JSON Schema.

    Raises:
        BadRequest: it does not fit.
    """
    first = next(jsonschema.Draft202012Validator(schema).iter_errors(dict(input)), None)
    if first is not None:
        where = ".".join(map(str, first.absolute_path)) or "input"
        raise BadRequest(f"{where}: {first.message}"[:MAX_WORDS])


def check_webhook(url: str) -> None:
    """Refuse a webhook URL that must not or cannot be called.

    Plain HTTP is for this machine only: a webhook's URL carries a token.

    Raises:
        BadRequest: it is no absolute http(s) URL, or plain HTTP off loopback.
    """
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, UnicodeError):
        raise BadRequest("webhook: must be a URL, percent-encoded in the query") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise BadRequest("webhook: must be an https URL")
    if parsed.scheme == "http" and not _loopback(parsed.host):
        raise BadRequest("webhook: must be an https URL (plain http only to this machine)")


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def whole(query: Mapping[str, JSON], name: str, most: int) -> int:
    """A whole number from 1 to `most`, from the query of the history.

    Raises:
        BadRequest: it is none.
    """
    value = query.get(name)
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most:
        return value
    raise BadRequest(f"{name}: must be a whole number from 1 to {most}")

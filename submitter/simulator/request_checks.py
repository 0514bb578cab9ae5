"""Checks of requests, with the vendor's error texts."""

from __future__ import annotations

import functools
import ipaddress
import json
from collections.abc import Mapping
from datetime import datetime

import httpx
import jsonschema

from submitter import catalogue
from submitter.prediction import JSON
from submitter.submit.json_check import json_faults

MAX_ERROR_CHARS = 300
"""Longest error text; a validator's own text repeats the value."""


class BadRequest(Exception):
    """A request is refused with 400; the text goes into the response."""


def read_object(body: bytes) -> dict[str, JSON]:
    """Parse a JSON object that a response can repeat.

    Raises:
        BadRequest: the body is not such an object.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequest("Invalid JSON body") from None
    if not isinstance(value, dict):
        raise BadRequest("The body must be a JSON object")
    faults, _ = json_faults(value)
    if faults:
        raise BadRequest(str(faults[0]))
    return value


def check_input(input: Mapping[str, JSON], model: str) -> None:
    """Validate an input against the JSON Schema of a built-in model.

    Raises:
        BadRequest: the input is not valid.
    """
    first = next(_validator(model).iter_errors(dict(input)), None)
    if first is not None:
        where = ".".join(map(str, first.absolute_path)) or "input"
        raise BadRequest(f"{where}: {first.message}"[:MAX_ERROR_CHARS])


@functools.cache
def _validator(model: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(catalogue.builtin(model) or {})


def check_webhook(url: str) -> None:
    """Check a webhook URL.

    Plain HTTP is allowed to loopback only, because a webhook's URL carries a token.

    Raises:
        BadRequest: not an absolute http(s) URL, or plain HTTP to another machine.
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


def integer(query: Mapping[str, JSON], name: str, maximum: int) -> int:
    """A whole number from 1 to `maximum`.

    Raises:
        BadRequest: the field is not one.
    """
    value = query.get(name)
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= maximum:
        return value
    raise BadRequest(f"{name}: must be a whole number from 1 to {maximum}")


def text(query: Mapping[str, JSON], name: str) -> str:
    """A non-empty string.

    Raises:
        BadRequest: the field is not one.
    """
    value = query.get(name)
    if isinstance(value, str) and value:
        return value
    raise BadRequest(f"{name}: must be a non-empty string")


def timestamp(query: Mapping[str, JSON], name: str) -> float | None:
    """Unix seconds of an RFC 3339 time; None if it is missing or empty.

    Raises:
        BadRequest: the field is not such a time.
    """
    value = query.get(name)
    if value in (None, ""):
        return None
    try:
        return datetime.fromisoformat(str(value)).timestamp()
    # OverflowError: a time outside the platform's range.
    except (ValueError, OverflowError):
        raise BadRequest(f"{name}: must be a time such as 2026-03-01T09:12:48Z") from None

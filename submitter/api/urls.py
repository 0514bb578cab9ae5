"""Checks of URLs: HTTPS anywhere, plain HTTP on this machine only."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from submitter.errors import BadSettings

_LOOPBACK = re.compile(r"(?:.+\.)?localhost")


def url_fault(url: str) -> str | None:
    """The fault of a URL that is neither HTTPS nor plain HTTP on this machine, or None."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    if not (host and parts.scheme in ("http", "https") and url.isprintable() and " " not in url):
        return "must be a whole URL, such as https://hooks.example.com"
    if parts.username is not None or parts.password is not None:
        return "must not hold a user name or a password"
    if parts.scheme == "http" and not _is_loopback(host):
        return "must be HTTPS; plain HTTP is only for this machine"
    return None


def public_base(url: str) -> str:
    """Check the receiver's public base URL.

    Raises:
        BadSettings: the API would not send there, or no path can be added to it.
    """
    reason = base_fault(url)
    if reason:
        raise BadSettings("WAVEHOOK_PUBLIC_URL", reason)
    return url


def base_fault(url: str) -> str | None:
    """The fault of a base URL, to which paths are added, or None."""
    if set(url) & {"?", "#"}:
        return "must end with its path: no query, no fragment"
    return url_fault(url)


def _is_loopback(host: str) -> bool:
    if _LOOPBACK.fullmatch(host):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

"""URLs of results, made fit to stand in any service's markup."""

from __future__ import annotations

import re
from urllib.parse import quote

import httpx

from receiver.errors import Refused
from receiver.safe_http import check_url

MAX_LINK = 2000
"""Characters; every service takes a URL of this length, and no longer one is linked."""

_PLACE = re.compile(r"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]+)?")
_UNSAFE = re.compile(r"[^A-Za-z0-9._~:/?#@!$&+,;=%-]")


class Link(str):
    """A URL that no markup can be broken out of: visible ASCII, no quotes, brackets or pipes."""

    __slots__ = ()


def link(url: str) -> Link | None:
    """Read a URL; None where it is none for a person to open."""
    try:
        parsed = httpx.URL(url)
        check_url(parsed)
    except (httpx.InvalidURL, Refused):
        return None
    place = parsed.netloc.decode("ascii")
    if not _PLACE.fullmatch(place):
        return None
    # A fragment says nothing to a server.
    path = _UNSAFE.sub(lambda found: quote(found[0]), parsed.raw_path.decode("ascii"))
    text = f"{parsed.scheme}://{place}{path}"
    return Link(text) if len(text) <= MAX_LINK else None


def ending(url: str) -> str:
    """The ending of the file that a URL names, in lower case, such as `mp4`."""
    path = url.partition("?")[0].partition("#")[0]
    return path.rpartition("/")[2].rpartition(".")[2].lower()

"""A URL that does not tell what is private in it."""

from __future__ import annotations

import httpx


class QuietURL(httpx.URL):
    """A URL whose text ends after the host: its path or query holds a token (F16).

    httpx logs the URL of each request, and errors quote it; what is sent stays whole. Nobody
    else's lines change, as they would by a filter on httpx's logger.
    """

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc.decode('ascii')[:260]}"

    def __repr__(self) -> str:
        return f"QuietURL({str(self)!r})"

    def join(self, url: httpx.URL | str) -> httpx.URL:
        """As of any URL: upstream's goes by the text."""
        return httpx.URL(self).join(url)


async def quieten(request: httpx.Request) -> None:
    """Make a request's URL quiet; a hook of httpx, which also sees each hop of a redirect."""
    request.url = QuietURL(request.url)

"""One output, fetched: bounded in size and time, and gone on with where it broke off."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

import httpx

from receiver.errors import GiveUp, Refused, Retry
from receiver.handlers.archive.content import SNIFFED
from receiver.handlers.archive.storage import Part
from receiver.outbound.client import check_url
from submitter.api.retry_after import retry_after

BLOCK = 2**19
"""Bytes that are handed on at once."""

MANY = 1024
"""Reads that are handed on at once, where they are small."""

PACE = 2**16
"""Bytes that come in `PATIENCE` at least, or the connection is given up."""

PATIENCE = 30.0
"""Seconds."""

_STRONG = re.compile(r'"[\x21\x23-\x7e]{0,256}"')
_RANGE = re.compile(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18})", re.ASCII)
_NONE = re.compile(r"bytes \*/(\d{1,18})", re.ASCII)


class Doubtful(Retry):
    """It may be so for good: worth trying again for a short time only."""


@dataclass(frozen=True, slots=True)
class Download:
    """What holds for every output.

    Attributes:
        types: globs of the content types that are taken.
        max_size: bytes of an output.
        patience: for `PATIENCE`.
        clock: Unix seconds, for a Retry-After that is a date.
    """

    types: tuple[str, ...]
    max_size: int
    patience: float = PATIENCE
    clock: Callable[[], float] = time.time

    async def fetch(self, client: httpx.AsyncClient, url: str, part: Part, until: float) -> None:
        """Bring a part to its end.

        Args:
            client: follows redirects.
            url: of the output, from the event.
            part: may have bytes already.
            until: the event loop's time at which it must have ended.

        Raises:
            GiveUp: it must not be fetched, or is too large.
            Doubtful: it is gone, or not what an output is.
            Retry: it did not come now; the part is left to be gone on with.
        """
        try:
            target = httpx.URL(url)
            check_url(target)
            await self._all(client, target, part, until)
        except httpx.InvalidURL:
            raise GiveUp("no URL that can be called") from None
        except Refused as error:
            raise GiveUp(str(error)) from None
        content = part.content
        if not content.size or content.cut:
            await part.begin(None)
            what = f"ends before its end, at {content.size} bytes" if content.size else "is empty"
            raise Doubtful(f"{target.host}: the file {what}")

    async def _all(
        self, client: httpx.AsyncClient, url: httpx.URL, part: Part, until: float
    ) -> None:
        """Ask, and ask for the rest as long as each answer brings a good deal of it."""
        loop = asyncio.get_running_loop()
        while True:
            before = part.content.size
            left = until - loop.time()
            if left <= 0:
                raise Retry(f"{url.host}: no time left, after {before} bytes")
            try:
                if await self._ask(client, url, part, left):
                    return
            except (httpx.TransportError, TimeoutError) as error:
                size = part.content.size
                if part.etag is None or size - before < PACE:
                    # Its own text might show the URL.
                    what = f"{type(error).__name__} after {size} bytes"
                    raise Retry(f"{url.host}: {what}") from None
            except httpx.RequestError as error:
                raise Doubtful(f"{url.host}: {type(error).__name__}") from None

    async def _ask(
        self, client: httpx.AsyncClient, url: httpx.URL, part: Part, seconds: float
    ) -> bool:
        """One request; False where it must be asked anew, from the beginning."""
        headers = {}
        if part.etag is not None and part.content.size:
            # https://www.rfc-editor.org/rfc/rfc9110#field.if-range
            headers = {"range": f"bytes={part.content.size}-", "if-range": part.etag}
        request = client.build_request("GET", url, headers=headers, timeout=seconds)
        async with asyncio.timeout(self.patience):
            response = await client.send(request, stream=True)
        try:
            if headers and response.status_code in (206, 416):
                total = _rest(response, part)
                if total == part.content.size:
                    return True
                if total is None:
                    await part.begin(None)
                    return False
            elif response.status_code == 200:
                etag = response.headers.get("etag", "")
                await part.begin(etag if _STRONG.fullmatch(etag) else None)
                total = _length(response)
            else:
                raise self._refusal(url.host, response)
            if total is not None:
                self._bound(url.host, total)
                await part.expect(total - part.content.size)
            await self._take(response, url.host, part)
        finally:
            await response.aclose()
            await part.flush()
        if total is not None and part.content.size != total:
            raise httpx.RemoteProtocolError("the body is not as long as it was said to be")
        return True

    async def _take(self, response: httpx.Response, host: str, part: Part) -> None:
        """Write what comes, a block at a time; where it breaks off, also what is left."""
        size = counted = written = part.content.size
        blocks: list[bytes] = []
        now = asyncio.get_running_loop().time

        async def write() -> None:
            nonlocal written
            if not written:
                kind = part.content.begin(b"".join(blocks)[:SNIFFED])
                if not any(fnmatchcase(kind.content_type, glob) for glob in self.types):
                    raise Doubtful(f"{host}: the file is {kind.content_type} by its content")
            await part.write(blocks[:])
            written = size
            blocks.clear()

        try:
            async with asyncio.timeout(self.patience) as patience:
                async for data in response.aiter_raw():
                    blocks.append(data)
                    size += len(data)
                    self._bound(host, size)
                    if size - counted >= PACE:
                        counted = size
                        patience.reschedule(now() + self.patience)
                    if size - written >= BLOCK or (len(blocks) >= MANY and size >= SNIFFED):
                        await write()
        except (httpx.TransportError, TimeoutError):
            # Less would not tell what it is.
            if size > written and size >= SNIFFED:
                await write()
            raise
        if size > written:
            await write()

    def _bound(self, host: str, size: int) -> None:
        if size > self.max_size:
            raise GiveUp(f"{host}: the file is larger than max_size, {self.max_size} bytes")

    def _refusal(self, host: str, response: httpx.Response) -> Retry:
        status = response.status_code
        text = f"{host}: HTTP {status}"
        if status in (429, 503):
            wait = retry_after(response.headers.get("retry-after", ""), self.clock())
            if wait is not None:
                return Retry(f"{text}, Retry-After {wait:.0f} s", after=wait, pause=True)
        return Doubtful(text) if status in (404, 410) else Retry(text)


def _length(response: httpx.Response) -> int | None:
    written = response.headers.get("content-length", "")
    return int(written) if re.fullmatch(r"[0-9]{1,18}", written) else None


def _rest(response: httpx.Response, part: Part) -> int | None:
    """The size of the whole, where an answer goes on with the part; None where it does not."""
    written = response.headers.get("content-range", "")
    have = part.content.size
    if response.status_code == 416:
        # A part that was left at its very end has nothing to come.
        found = _NONE.fullmatch(written)
        return have if found and int(found[1]) == have else None
    found = _RANGE.fullmatch(written)
    same = response.headers.get("etag") in (None, part.etag)
    return int(found[2]) if found and same and int(found[1]) == have else None

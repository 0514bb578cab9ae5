"""Download of one output: limited in size and time, resumed where it broke off."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

import httpx

from receiver.errors import GiveUp, Refused, Retry
from receiver.handlers.archive.content import SNIFF_BYTES
from receiver.handlers.archive.storage import PartialFile
from receiver.outbound.client import check_url
from submitter.api.responses import retry_after

BLOCK_BYTES = 2**19
"""Bytes of one write."""

MAX_READS_PER_WRITE = 1024
"""Reads of one write, if they are small."""

MIN_PROGRESS_BYTES = 2**16
"""Bytes that must arrive within `PROGRESS_TIMEOUT_S`; otherwise the connection is closed."""

PROGRESS_TIMEOUT_S = 30.0

_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]{0,256}"')
_RANGE = re.compile(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18})", re.ASCII)
_NO_RANGE = re.compile(r"bytes \*/(\d{1,18})", re.ASCII)


class RetryBriefly(Retry):
    """A fault that is often permanent: worth retries for a short time only."""


@dataclass(frozen=True, slots=True)
class Download:
    """Downloads outputs.

    Attributes:
        types: globs of accepted content types.
        max_size: largest output in bytes.
        progress_timeout: seconds in which `MIN_PROGRESS_BYTES` must arrive.
        clock: Unix seconds, for a Retry-After that is a date.
    """

    types: tuple[str, ...]
    max_size: int
    progress_timeout: float = PROGRESS_TIMEOUT_S
    clock: Callable[[], float] = time.time

    async def fetch(
        self, client: httpx.AsyncClient, url: str, part: PartialFile, until: float
    ) -> None:
        """Download an output, or the rest of it.

        Args:
            client: follows redirects.
            url: URL of the output.
            part: may have bytes already.
            until: deadline, in the event loop's time.

        Raises:
            GiveUp: the URL is not allowed, or the file is too large.
            RetryBriefly: the file is missing, incomplete or of another type.
            Retry: a temporary fault; the part can be resumed.
        """
        try:
            target = httpx.URL(url)
            check_url(target)
            await self._download(client, target, part, until)
        except httpx.InvalidURL:
            raise GiveUp("the output's URL is not valid") from None
        except Refused as error:
            raise GiveUp(str(error)) from None
        content = part.content
        if not content.size or content.cut:
            await part.begin(None)
            what = f"ends before its end, at {content.size} bytes" if content.size else "is empty"
            raise RetryBriefly(f"{target.host}: the file {what}")

    async def _download(
        self, client: httpx.AsyncClient, url: httpx.URL, part: PartialFile, until: float
    ) -> None:
        """Send requests for the rest, as long as each response brings enough of it."""
        loop = asyncio.get_running_loop()
        while True:
            before = part.content.size
            left = until - loop.time()
            if left <= 0:
                raise Retry(f"{url.host}: no time left, after {before} bytes")
            try:
                if await self._request(client, url, part, left):
                    return
            except (httpx.TransportError, TimeoutError) as error:
                size = part.content.size
                if part.etag is None or size - before < MIN_PROGRESS_BYTES:
                    # The exception's own text might contain the URL.
                    what = f"{type(error).__name__} after {size} bytes"
                    raise Retry(f"{url.host}: {what}") from None
            except httpx.RequestError as error:
                raise RetryBriefly(f"{url.host}: {type(error).__name__}") from None

    async def _request(
        self, client: httpx.AsyncClient, url: httpx.URL, part: PartialFile, seconds: float
    ) -> bool:
        """Send one request; returns False if the download must start from the beginning."""
        headers = {}
        if part.etag is not None and part.content.size:
            # https://www.rfc-editor.org/rfc/rfc9110#field.if-range
            headers = {"range": f"bytes={part.content.size}-", "if-range": part.etag}
        request = client.build_request("GET", url, headers=headers, timeout=seconds)
        async with asyncio.timeout(self.progress_timeout):
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
                await part.begin(etag if _STRONG_ETAG.fullmatch(etag) else None)
                total = _length(response)
            else:
                raise self._refusal(url.host, response)
            if total is not None:
                self._check_size(url.host, total)
                await part.expect(total - part.content.size)
            await self._receive(response, url.host, part)
        finally:
            await response.aclose()
            await part.flush()
        if total is not None and part.content.size != total:
            raise httpx.RemoteProtocolError("the body is shorter or longer than its Content-Length")
        return True

    async def _receive(self, response: httpx.Response, host: str, part: PartialFile) -> None:
        """Write the body block by block; if it breaks off, also the last bytes."""
        size = counted = written = part.content.size
        blocks: list[bytes] = []
        now = asyncio.get_running_loop().time

        async def write() -> None:
            nonlocal written
            if not written:
                kind = part.content.begin(b"".join(blocks)[:SNIFF_BYTES])
                if not any(fnmatchcase(kind.content_type, glob) for glob in self.types):
                    raise RetryBriefly(f"{host}: the file is {kind.content_type} by its content")
            await part.write(blocks[:])
            written = size
            blocks.clear()

        try:
            async with asyncio.timeout(self.progress_timeout) as timeout:
                async for data in response.aiter_raw():
                    blocks.append(data)
                    size += len(data)
                    self._check_size(host, size)
                    if size - counted >= MIN_PROGRESS_BYTES:
                        counted = size
                        timeout.reschedule(now() + self.progress_timeout)
                    if size - written >= BLOCK_BYTES or (
                        len(blocks) >= MAX_READS_PER_WRITE and size >= SNIFF_BYTES
                    ):
                        await write()
        except (httpx.TransportError, TimeoutError):
            # Fewer bytes do not tell the kind.
            if size > written and size >= SNIFF_BYTES:
                await write()
            raise
        if size > written:
            await write()

    def _check_size(self, host: str, size: int) -> None:
        if size > self.max_size:
            raise GiveUp(f"{host}: the file is larger than max_size, {self.max_size} bytes")

    def _refusal(self, host: str, response: httpx.Response) -> Retry:
        status = response.status_code
        text = f"{host}: HTTP {status}"
        if status in (429, 503):
            wait = retry_after(response.headers.get("retry-after", ""), self.clock())
            if wait is not None:
                return Retry(f"{text}, Retry-After {wait:.0f} s", after=wait, pause=True)
        return RetryBriefly(text) if status in (404, 410) else Retry(text)


def _length(response: httpx.Response) -> int | None:
    header = response.headers.get("content-length", "")
    return int(header) if re.fullmatch(r"[0-9]{1,18}", header) else None


def _rest(response: httpx.Response, part: PartialFile) -> int | None:
    """Size of the whole file if the response continues the part; None if it does not."""
    header = response.headers.get("content-range", "")
    have = part.content.size
    if response.status_code == 416:
        # The part is complete: nothing is left to send.
        found = _NO_RANGE.fullmatch(header)
        return have if found and int(found[1]) == have else None
    found = _RANGE.fullmatch(header)
    same = response.headers.get("etag") in (None, part.etag)
    return int(found[2]) if found and same and int(found[1]) == have else None

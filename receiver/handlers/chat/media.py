"""Results as streams: downloaded and uploaded to a chat at the same time.

Only the current block is in memory, whatever the size of the result.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx

from receiver.errors import Refused
from receiver.outbound.client import LazyClient
from submitter.submit.files import FileType, file_type

_MEDIA_TYPES = ("video", "image", "audio")
_MAX_REDIRECTS = 3


class MediaUnusable(Exception):
    """A result cannot be uploaded; the text says why, without its URL."""


@dataclass(frozen=True, slots=True)
class Media:
    """An open download of a result.

    Attributes:
        kind: by its first bytes.
        size: in bytes.
        content: its bytes; they can be read once.
    """

    kind: FileType
    size: int
    content: AsyncIterator[bytes] = field(repr=False)

    @property
    def sort(self) -> str:
        """`video`, `image` or `audio`."""
        return self.kind.content_type.partition("/")[0]


class MediaReader:
    """Downloads results.

    Args:
        allow: private targets that may be called.
        max_bytes: largest result; of a larger one, only the response header is read.
    """

    def __init__(self, allow: Sequence[str], max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._client = LazyClient(allow, redirects=_MAX_REDIRECTS, max_body=max_bytes)

    @asynccontextmanager
    async def open(self, url: str, seconds: float) -> AsyncIterator[Media]:
        """Open a result.

        Args:
            url: the result's URL.
            seconds: timeout of the whole download.

        Raises:
            MediaUnusable: it is missing, too large, or not a video, picture or sound.
        """
        try:
            stream = self._client.open().stream("GET", url, timeout=max(seconds, 0.001))
            async with stream as response:
                size = self._size(response)
                parts = response.aiter_raw()
                start = b""
                async for part in parts:
                    start += part
                    if len(start) >= 16:
                        break
                found = file_type(start)
                if found.content_type.partition("/")[0] not in _MEDIA_TYPES:
                    raise MediaUnusable("it is not a video, picture or sound")
                yield Media(found, size, _chained(start, parts))
        except (Refused, httpx.HTTPError) as error:
            reason = str(error) if isinstance(error, Refused) else type(error).__name__
            raise MediaUnusable(f"it could not be read ({reason})") from None

    async def close(self) -> None:
        """Close the connections; the next download opens new ones."""
        await self._client.close()

    def _size(self, response: httpx.Response) -> int:
        if response.status_code != 200:
            raise MediaUnusable(f"it could not be read (HTTP {response.status_code})")
        length = response.headers.get("content-length", "")
        if not (length.isascii() and length.isdigit()):
            raise MediaUnusable("its size is unknown")
        if not 0 < int(length[:18]) <= self._max_bytes:
            raise MediaUnusable(f"it has {length[:18]} bytes; the limit is {self._max_bytes}")
        return int(length)


async def _chained(start: bytes, parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield start
    async for part in parts:
        yield part


def multipart(
    fields: Mapping[str, str], part: str, name: str, media: Media, boundary: str | None = None
) -> tuple[dict[str, str], AsyncIterator[bytes]]:
    """Multipart form with a file; returns headers, with the length, and the body.

    https://www.rfc-editor.org/rfc/rfc7578

    Args:
        fields: text fields.
        part: name of the file's field.
        name: the file's name: letters, digits, `-` and `.`.
        media: the file.
        boundary: between the fields; by default a random one.
    """
    line = f"--{boundary or secrets.token_hex(16)}"
    head = "".join(
        f'{line}\r\ncontent-disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'
        for key, value in fields.items()
    )
    head += (
        f'{line}\r\ncontent-disposition: form-data; name="{part}"; filename="{name}"\r\n'
        f"content-type: {media.kind.content_type}\r\n\r\n"
    )
    before, after = head.encode(), f"\r\n{line}--\r\n".encode()

    async def body() -> AsyncIterator[bytes]:
        yield before
        async for piece in media.content:
            yield piece
        yield after

    headers = {
        "content-type": f"multipart/form-data; boundary={line[2:]}",
        "content-length": str(len(before) + media.size + len(after)),
    }
    return headers, body()

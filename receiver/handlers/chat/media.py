"""A result on its way into a chat: read from where it is and sent on, without being kept.

Nothing of it is held but the piece in hand, so that neither memory nor disk grows with its size.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx

from receiver.errors import Refused
from receiver.outbound.client import client
from submitter.submit.files import FileType, file_type

_SHOWN = ("video", "image", "audio")
_REDIRECTS = 3


class MediaUnusable(Exception):
    """A result that cannot be sent on; the text says why, and nothing of its URL."""


@dataclass(frozen=True, slots=True)
class Media:
    """A result that is being read.

    Attributes:
        kind: by its first bytes.
        size: in bytes.
        content: its bytes, once.
    """

    kind: FileType
    size: int
    content: AsyncIterator[bytes] = field(repr=False)

    @property
    def sort(self) -> str:
        """`video`, `image` or `audio`."""
        return self.kind.content_type.partition("/")[0]


class MediaReader:
    """Reads results.

    Args:
        allow: private targets that may be called.
        most: bytes of the largest one; of what is larger only the header is read.
    """

    def __init__(self, allow: Sequence[str], most: int) -> None:
        self._allow = allow
        self._most = most
        self._client: httpx.AsyncClient | None = None

    @asynccontextmanager
    async def open(self, url: str, seconds: float) -> AsyncIterator[Media]:
        """Begin to read a result.

        Args:
            url: where it is.
            seconds: until all of it must be here.

        Raises:
            MediaUnusable: it is not there, too large, or no video, picture or sound (F35).
        """
        try:
            async with self._open().stream("GET", url, timeout=max(seconds, 0.001)) as response:
                size = self._size(response)
                parts = response.aiter_raw()
                start = b""
                async for part in parts:
                    start += part
                    if len(start) >= 16:
                        break
                found = file_type(start)
                if found.content_type.partition("/")[0] not in _SHOWN:
                    raise MediaUnusable("it is no video, picture or sound")
                yield Media(found, size, _all(start, parts))
        except (Refused, httpx.HTTPError) as error:
            told = str(error) if isinstance(error, Refused) else type(error).__name__
            raise MediaUnusable(f"it could not be read ({told})") from None

    async def close(self) -> None:
        """Let the connections go; the next result makes new ones."""
        if self._client is not None:
            closing, self._client = self._client, None
            await closing.aclose()

    def _open(self) -> httpx.AsyncClient:
        if self._client is None:
            self._client = client(self._allow, redirects=_REDIRECTS, max_body=self._most)
        return self._client

    def _size(self, response: httpx.Response) -> int:
        if response.status_code != 200:
            raise MediaUnusable(f"it could not be read (HTTP {response.status_code})")
        length = response.headers.get("content-length", "")
        if not (length.isascii() and length.isdigit()):
            raise MediaUnusable("its size is not known")
        if not 0 < int(length[:18]) <= self._most:
            raise MediaUnusable(f"it has {length[:18]} bytes, of {self._most} at most")
        return int(length)


async def _all(start: bytes, parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield start
    async for part in parts:
        yield part


def multipart(
    fields: Mapping[str, str], part: str, name: str, media: Media, boundary: str | None = None
) -> tuple[dict[str, str], AsyncIterator[bytes]]:
    """A form with a file in it, as headers and a body of known length.

    https://www.rfc-editor.org/rfc/rfc7578

    Args:
        fields: of text.
        part: the file's field.
        name: the file's name: letters, digits, `-` and `.`.
        media: the file.
        boundary: between the fields; a random one unless given.
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

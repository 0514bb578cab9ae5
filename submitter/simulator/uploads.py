"""Files that were uploaded: announced first, then put; they lie on disk, and go with the simulator.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-presigned-url.html is how such
uploads work where the vendor sends them: what was signed must come, and nothing beside it.
"""

from __future__ import annotations

import asyncio
import hmac
import re
import tempfile
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from submitter.simulator.clock import Moment, Timeline

KEPT = 7 * 24 * 3600.0
"""Seconds of life for which an upload is there."""

MOST = 200 * 1024 * 1024
"""Bytes of one file."""

_ORDINARY = frozenset(
    {
        "accept",
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "transfer-encoding",
        "user-agent",
    }
)
"""Headers that HTTP clients send with everything."""


class Refused(Exception):
    """An upload is refused with 403 or 400.

    Args:
        status: of HTTP.
        reason: for a person.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(slots=True)
class Upload:
    """One file, announced; and put, once `path` is set.

    Attributes:
        name: of the file in URLs; never the sender's own.
        size: bytes.
        content_type: as announced.
        headers: which the PUT must carry.
        signature: which the PUT's URL must carry.
        announced: when.
        path: where it lies.
    """

    name: str
    size: int
    content_type: str
    headers: Mapping[str, str] = field(repr=False)
    signature: str = field(repr=False)
    announced: Moment
    path: Path | None = None


class Uploads:
    """The uploaded files.

    Args:
        timeline: of life.
    """

    def __init__(self, timeline: Timeline | None = None) -> None:
        self._timeline = timeline or Timeline()
        self._uploads: OrderedDict[str, Upload] = OrderedDict()
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def announce(self, filename: str, size: int, content_type: str, now: float) -> Upload:
        """Make a place for a file.

        Args:
            filename: only its ending is kept.
            size: bytes.
            content_type: which the PUT and the download will have.
            now: Unix seconds.
        """
        self._forget(now)
        ending = re.search(r"\.[a-z0-9]{1,8}\Z", filename.lower())
        headers = {"Content-Type": content_type, "X-Upload-Token": uuid4().hex}
        name = uuid4().hex + (ending[0] if ending else "")
        announced = self._timeline.moment(now)
        upload = Upload(name, size, content_type, headers, uuid4().hex, announced)
        self._uploads[name] = upload
        return upload

    def find(self, name: str, now: float) -> Upload | None:
        """An upload of the last 7 days."""
        upload = self._uploads.get(name)
        return upload if upload and not self._forgotten(upload, now) else None

    async def put(
        self,
        upload: Upload,
        signature: str,
        headers: Mapping[str, str],
        chunks: AsyncIterator[bytes],
    ) -> None:
        """Take a file's bytes; sent again, they replace what is there.

        Args:
            upload: as announced.
            signature: from the URL.
            headers: of the request; names in lower case.
            chunks: the body, as it comes.

        Raises:
            Refused: not as announced.
        """
        _check(upload, signature, headers)
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="wavehook-simulator-")
        path = Path(self._folder.name) / uuid4().hex
        try:
            await _write(path, chunks, upload.size)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        if upload.path:
            upload.path.unlink()
        upload.path = path

    def close(self) -> None:
        """Delete all files."""
        self._uploads.clear()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _forget(self, now: float) -> None:
        while self._uploads and self._forgotten(oldest := next(iter(self._uploads.values())), now):
            del self._uploads[oldest.name]
            if oldest.path:
                oldest.path.unlink()

    def _forgotten(self, upload: Upload, now: float) -> bool:
        return now >= self._timeline.after(upload.announced, KEPT)


def _check(upload: Upload, signature: str, headers: Mapping[str, str]) -> None:
    wanted = {name.lower(): value for name, value in upload.headers.items()}
    if not hmac.compare_digest(signature.encode(), upload.signature.encode()):
        raise Refused(403, "The signature of the URL does not match")
    if "authorization" in headers:
        raise Refused(400, "Only one auth mechanism allowed: send no Authorization")
    for name, value in wanted.items():
        if headers.get(name) != value:
            raise Refused(403, f"The header {name} is not as it was signed")
    for name in headers:
        if name not in wanted and name not in _ORDINARY:
            raise Refused(403, f"The header {name} was not signed")
    length = headers.get("content-length")
    if length is not None and length != str(upload.size):
        raise Refused(400, f"The body must have {upload.size} bytes, has {length}")


async def _write(path: Path, chunks: AsyncIterator[bytes], size: int) -> None:
    written = 0
    with path.open("wb") as file:
        async for chunk in chunks:
            written += len(chunk)
            if written > size:
                break
            await asyncio.to_thread(file.write, chunk)
    if written != size:
        raise Refused(400, f"The body must have {size} bytes")

"""Uploads of files by presigned URL: announced first, then sent with PUT.

The files are on disk, and deleted when the simulator stops. A PUT must carry exactly the signed
headers, as at the vendor's storage:
https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-presigned-url.html
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

UPLOAD_RETENTION_S = 7 * 24 * 3600.0
"""Simulated seconds for which an upload is kept."""

MAX_UPLOAD_BYTES = 200 * 1024 * 1024
"""Largest file."""

_UNSIGNED_HEADERS = frozenset(
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
"""Headers that HTTP clients add to every request; they need no signature."""


class UploadRefused(Exception):
    """An upload is refused.

    Args:
        status: the HTTP status, 403 or 400.
        reason: text of the response.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(slots=True)
class SimulatedUpload:
    """One announced file.

    Attributes:
        name: file name in URLs; never the sender's own.
        size: bytes.
        content_type: as announced.
        headers: required on the PUT.
        signature: required in the PUT's URL.
        announced: the moment of the announcement.
        path: the file on disk; None before the PUT.
    """

    name: str
    size: int
    content_type: str
    headers: Mapping[str, str] = field(repr=False)
    signature: str = field(repr=False)
    announced: Moment
    path: Path | None = None


class UploadStore:
    """Store of uploaded files.

    Args:
        timeline: simulated time.
    """

    def __init__(self, timeline: Timeline | None = None) -> None:
        self._timeline = timeline or Timeline()
        self._uploads: OrderedDict[str, SimulatedUpload] = OrderedDict()
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def announce(self, filename: str, size: int, content_type: str, now: float) -> SimulatedUpload:
        """Announce a file, and make its presigned URL.

        Args:
            filename: the sender's name; only its extension is kept.
            size: bytes.
            content_type: Content-Type of the PUT and of the download.
            now: Unix seconds.
        """
        self._delete_expired(now)
        extension = re.search(r"\.[a-z0-9]{1,8}\Z", filename.lower())
        headers = {"Content-Type": content_type, "X-Upload-Token": uuid4().hex}
        name = uuid4().hex + (extension[0] if extension else "")
        announced = self._timeline.moment(now)
        upload = SimulatedUpload(name, size, content_type, headers, uuid4().hex, announced)
        self._uploads[name] = upload
        return upload

    def find(self, name: str, now: float) -> SimulatedUpload | None:
        """An upload that is not expired."""
        upload = self._uploads.get(name)
        return upload if upload and not self._expired(upload, now) else None

    async def put(
        self,
        upload: SimulatedUpload,
        signature: str,
        headers: Mapping[str, str],
        chunks: AsyncIterator[bytes],
    ) -> None:
        """Store a file; a second PUT replaces the first.

        Args:
            upload: the announcement.
            signature: from the URL.
            headers: of the request; names in lower case.
            chunks: the request body.

        Raises:
            UploadRefused: the request differs from the announcement.
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

    def _delete_expired(self, now: float) -> None:
        while self._uploads and self._expired(oldest := next(iter(self._uploads.values())), now):
            del self._uploads[oldest.name]
            if oldest.path:
                oldest.path.unlink()

    def _expired(self, upload: SimulatedUpload, now: float) -> bool:
        return now >= self._timeline.after(upload.announced, UPLOAD_RETENTION_S)


def _check(upload: SimulatedUpload, signature: str, headers: Mapping[str, str]) -> None:
    signed = {name.lower(): value for name, value in upload.headers.items()}
    if not hmac.compare_digest(signature.encode(), upload.signature.encode()):
        raise UploadRefused(403, "The signature of the URL does not match")
    if "authorization" in headers:
        raise UploadRefused(400, "Only one auth mechanism allowed: send no Authorization")
    for name, value in signed.items():
        if headers.get(name) != value:
            raise UploadRefused(403, f"The header {name} does not match the signed value")
    for name in headers:
        if name not in signed and name not in _UNSIGNED_HEADERS:
            raise UploadRefused(403, f"The header {name} was not signed")
    length = headers.get("content-length")
    if length is not None and length != str(upload.size):
        raise UploadRefused(400, f"The body must have {upload.size} bytes, has {length}")


async def _write(path: Path, chunks: AsyncIterator[bytes], size: int) -> None:
    written = 0
    with path.open("wb") as file:
        async for chunk in chunks:
            written += len(chunk)
            if written > size:
                break
            await asyncio.to_thread(file.write, chunk)
    if written != size:
        raise UploadRefused(400, f"The body must have {size} bytes")

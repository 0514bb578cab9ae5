"""What an output is by its bytes, while they pass: kind, size, SHA-256, and whether it is whole.

A body without a length may end early and nobody says so, but some formats do: MP4 and its kin
are boxes with sizes, PNG is chunks with sizes up to a last one, RIFF has its size in front, JPEG
ends with a mark. Where the end of other formats is, is not known here.
"""

from __future__ import annotations

import hashlib

from submitter.submit.files import JPEG, PNG, UNKNOWN, Kind, kind

SNIFFED = 4096
"""Bytes that are enough to know the kind."""

MAX_PARTS = 100_000
"""Boxes or chunks of a file that are looked at; a file of more counts as whole."""

_HTML = Kind("html", "text/html")
_SVG = Kind("svg", "image/svg+xml")
_GLB = Kind("glb", "model/gltf-binary")

_JPEG_END = b"\xff\xd9"
_TAIL = 4096


def sniff(head: bytes) -> Kind:
    """The kind of a file that begins so."""
    found = kind(head)
    if found != UNKNOWN:
        return found
    if head.startswith(b"glTF"):
        return _GLB
    text = head[:SNIFFED].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(b"<"):
        # Else it is an error page, in HTML or XML; no other text is worth telling from it.
        return _SVG if b"<svg" in text and b"<html" not in text else _HTML
    return UNKNOWN


class Content:
    """The bytes of one output so far.

    Attributes:
        kind: by the first bytes; of an unknown one before these.
        size: bytes.
    """

    def __init__(self) -> None:
        self.kind = UNKNOWN
        self.size = 0
        self._sha256 = hashlib.sha256()
        self._walk: _Boxes | None = None
        self._riff = 0
        self._tail = b""

    @property
    def sha256(self) -> str:
        """Of all bytes so far, in hex."""
        return self._sha256.hexdigest()

    @property
    def cut(self) -> bool:
        """Whether the bytes end before the file does, as far as its format tells."""
        if self._walk is not None:
            return self._walk.cut
        if self.kind == JPEG:
            return _JPEG_END not in self._tail
        return self.size < self._riff

    def begin(self, head: bytes) -> Kind:
        """Tell the kind from the first bytes, which are fed after it."""
        self.kind = sniff(head)
        if self.kind == PNG:
            self._walk = _Chunks()
        elif head[4:8] == b"ftyp":
            self._walk = _Boxes()
        elif head[:4] == b"RIFF":
            self._riff = int.from_bytes(head[4:8], "little") + 8
        return self.kind

    def feed(self, data: bytes) -> None:
        """Take the next bytes; a thread may do it."""
        self._sha256.update(data)
        self.size += len(data)
        if self._walk is not None:
            self._walk.feed(data)
        self._tail = (self._tail + data[-_TAIL:])[-_TAIL:]


class _Boxes:
    """Goes over the boxes of an ISO file (MP4, MOV, M4A, AVIF, HEIC), without holding them.

    https://www.iso.org/standard/83102.html, section 4.2: a size of 1 means that the real one
    follows the name, 0 that the box goes on to the end of the file.
    """

    #: One of these a file has, or nothing can be made of the rest.
    needed = frozenset({b"moov", b"meta"})

    def __init__(self, start: int = 0) -> None:
        self._next = start
        self._seen = 0
        self._head = b""
        self._found = False
        self._left = MAX_PARTS

    @property
    def cut(self) -> bool:
        """Whether the last part is not all there, or none of those that are needed."""
        return bool(self._left) and (self._next > self._seen or not self._found)

    def feed(self, block: bytes) -> None:
        """Take the next bytes."""
        start, self._seen = self._seen, self._seen + len(block)
        while self._left:
            at = max(0, self._next + len(self._head) - start)
            more = block[at : at + self.wanted(self._head) - len(self._head)]
            if not more:
                return
            self._head += more
            if len(self._head) == self.wanted(self._head):
                name = self._head[4:8]
                self._left -= 1
                self._found = self._found or name in self.needed
                length = self.length(self._head)
                self._head = b""
                # What has no name is padding.
                if length and name.isalnum():
                    self._next += length
                else:
                    self._left = 0

    def wanted(self, head: bytes) -> int:
        """Bytes of a part's head that must be known."""
        return 16 if head[:4] == b"\0\0\0\1" else 8

    def length(self, head: bytes) -> int:
        """Of the whole part; 0 where no other follows."""
        size = int.from_bytes(head[8:] or head[:4], "big")
        return size if size >= len(head) else 0


class _Chunks(_Boxes):
    """The same for PNG: https://www.w3.org/TR/png-3/#5Chunk-layout."""

    needed = frozenset({b"IEND"})

    def __init__(self) -> None:
        super().__init__(start=8)

    def wanted(self, head: bytes) -> int:  # noqa: ARG002 - of a chunk's head it does not depend
        return 8

    def length(self, head: bytes) -> int:
        return 0 if head[4:] == b"IEND" else int.from_bytes(head[:4], "big") + 12

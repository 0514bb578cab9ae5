"""Content of an output, inspected as a stream: kind, size, SHA-256, and completeness.

A response without a length may end early without an error, but some formats show it: MP4 and
related formats are boxes with sizes, PNG is chunks with sizes up to a last one, RIFF begins with
its size, JPEG ends with a marker. A file of another format counts as complete.
"""

from __future__ import annotations

import hashlib

from submitter.submit.files import JPEG, PNG, UNKNOWN, FileType, file_type

SNIFF_BYTES = 4096
"""Bytes that suffice to tell the kind."""

MAX_PARTS = 100_000
"""Boxes or chunks that are read; a file with more counts as complete."""

_HTML = FileType("html", "text/html")
_SVG = FileType("svg", "image/svg+xml")
_GLB = FileType("glb", "model/gltf-binary")

_JPEG_END = b"\xff\xd9"
_TAIL_BYTES = 4096


def sniff(head: bytes) -> FileType:
    """Kind of a file by its first bytes."""
    found = file_type(head)
    if found != UNKNOWN:
        return found
    if head.startswith(b"glTF"):
        return _GLB
    text = head[:SNIFF_BYTES].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(b"<"):
        # Any other markup is taken for an error page.
        return _SVG if b"<svg" in text and b"<html" not in text else _HTML
    return UNKNOWN


class Content:
    """Properties of the bytes so far.

    Attributes:
        kind: by the first bytes; unknown before them.
        size: bytes.
    """

    def __init__(self) -> None:
        self.kind = UNKNOWN
        self.size = 0
        self._sha256 = hashlib.sha256()
        self._scanner: _BoxScanner | None = None
        self._riff_size = 0
        self._tail = b""

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes so far, in hex."""
        return self._sha256.hexdigest()

    @property
    def cut(self) -> bool:
        """True if the format shows that the file is not complete."""
        if self._scanner is not None:
            return self._scanner.cut
        if self.kind == JPEG:
            return _JPEG_END not in self._tail
        return self.size < self._riff_size

    def begin(self, head: bytes) -> FileType:
        """Tell the kind by the first bytes; `feed` gets them afterwards."""
        self.kind = sniff(head)
        if self.kind == PNG:
            self._scanner = _ChunkScanner()
        elif head[4:8] == b"ftyp":
            self._scanner = _BoxScanner()
        elif head[:4] == b"RIFF":
            self._riff_size = int.from_bytes(head[4:8], "little") + 8
        return self.kind

    def feed(self, data: bytes) -> None:
        """Inspect the next bytes; a thread may call this."""
        self._sha256.update(data)
        self.size += len(data)
        if self._scanner is not None:
            self._scanner.feed(data)
        self._tail = (self._tail + data[-_TAIL_BYTES:])[-_TAIL_BYTES:]


class _BoxScanner:
    """Scans the boxes of an ISO file (MP4, MOV, M4A, AVIF, HEIC) as a stream.

    https://www.iso.org/standard/83102.html, section 4.2: a size of 1 means that the real size
    follows the name; 0 means that the box extends to the end of the file.
    """

    #: A complete file has one of these.
    needed = frozenset({b"moov", b"meta"})

    def __init__(self, start: int = 0) -> None:
        self._next = start
        self._seen = 0
        self._head = b""
        self._found = False
        self._left = MAX_PARTS

    @property
    def cut(self) -> bool:
        """True if the last part is incomplete, or a needed part is missing."""
        return bool(self._left) and (self._next > self._seen or not self._found)

    def feed(self, block: bytes) -> None:
        """Scan the next bytes."""
        start, self._seen = self._seen, self._seen + len(block)
        while self._left:
            at = max(0, self._next + len(self._head) - start)
            more = block[at : at + self.header_size(self._head) - len(self._head)]
            if not more:
                return
            self._head += more
            if len(self._head) == self.header_size(self._head):
                name = self._head[4:8]
                self._left -= 1
                self._found = self._found or name in self.needed
                length = self.length(self._head)
                self._head = b""
                # A part without a name is padding.
                if length and name.isalnum():
                    self._next += length
                else:
                    self._left = 0

    def header_size(self, head: bytes) -> int:
        """Size of a part's header."""
        return 16 if head[:4] == b"\0\0\0\1" else 8

    def length(self, head: bytes) -> int:
        """Size of the part; 0 if it is the last."""
        size = int.from_bytes(head[8:] or head[:4], "big")
        return size if size >= len(head) else 0


class _ChunkScanner(_BoxScanner):
    """Scans the chunks of a PNG: https://www.w3.org/TR/png-3/#5Chunk-layout."""

    needed = frozenset({b"IEND"})

    def __init__(self) -> None:
        super().__init__(start=8)

    def header_size(self, head: bytes) -> int:  # noqa: ARG002 - all headers have one size
        return 8

    def length(self, head: bytes) -> int:
        return 0 if head[4:] == b"IEND" else int.from_bytes(head[:4], "big") + 12

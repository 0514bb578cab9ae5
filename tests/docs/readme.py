"""The README as data: its blocks, tables, links and what stands between backticks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text("utf-8")

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^(#{1,6}) (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block.

    Attributes:
        language: after the fence; empty where none is named.
        heading: the nearest one above.
        text: what stands in it.
    """

    language: str
    heading: str
    text: str


def prose() -> str:
    """All that stands outside of blocks."""
    return _FENCE.sub("", TEXT)


def headings() -> list[str]:
    """Every heading, in order."""
    return [found[2] for found in _HEADING.finditer(prose())]


def blocks(language: str | None = None, heading: str | None = None) -> list[Block]:
    """Fenced blocks, in order: of one language, under one heading, or all."""
    known = dict(_places())
    found = []
    for fence in _FENCE.finditer(TEXT):
        title = known[max(place for place in known if place < fence.start())]
        found.append(Block(fence[1], title, fence[2]))
    return [
        block
        for block in found
        if language in (None, block.language) and heading in (None, block.heading)
    ]


def _places() -> list[tuple[int, str]]:
    inside = [fence.span() for fence in _FENCE.finditer(TEXT)]
    return [
        (found.start(), found[2])
        for found in _HEADING.finditer(TEXT)
        if not any(start <= found.start() < end for start, end in inside)
    ]


def the_block(language: str, containing: str) -> str:
    """The text of the only block of a language that holds a text."""
    [block] = [block for block in blocks(language) if containing in block.text]
    return block.text


def table(head: str) -> list[list[str]]:
    """The rows of the only table whose head begins with this row of cells.

    Args:
        head: the head's first cells, such as `setting | meaning`.
    """
    lines = prose().splitlines()
    [start] = [place for place, line in enumerate(lines) if line.startswith(f"| {head} |")]
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def spans() -> list[str]:
    """What stands between backticks in the prose."""
    return re.findall(r"`([^`\n]+)`", prose())


def plain(cell: str) -> str:
    """A cell without its backticks."""
    return cell.strip("`")


def commands() -> list[list[str]]:
    """Every `wavehook …` in the prose and in the blocks, as words."""
    written = [span for span in spans() if span.startswith("wavehook ")]
    for block in blocks():
        if block.language in {"sh", "bash"}:
            joined = block.text.replace("\\\n", " ")
            written += re.findall(r"(?<![\w./-])(?:\.venv/bin/)?wavehook [^\n&)]*", joined)
    return [words.removeprefix(".venv/bin/").split()[1:] for words in written]

"""The project's pages as data: their blocks, tables, links and code spans."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^(#{1,6}) (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block.

    Attributes:
        page: path of its page from the root.
        language: the word after the fence; empty where none is named.
        heading: the nearest one above.
        text: its content.
    """

    page: str
    language: str
    heading: str
    text: str


@dataclass(frozen=True, slots=True)
class Page:
    """One Markdown file.

    Attributes:
        path: from the root of the repository.
        text: the whole file.
    """

    path: str
    text: str

    def prose(self) -> str:
        """The text outside of fenced blocks."""
        return _FENCE.sub("", self.text)

    def headings(self) -> list[str]:
        """Every heading, in order."""
        return [found[2] for found in _HEADING.finditer(self.prose())]

    def anchors(self) -> set[str]:
        """The headings as the hosts of repositories make anchors of them."""
        return {slug(heading) for heading in self.headings()}

    def links(self) -> list[str]:
        """Targets of all links and images."""
        return re.findall(r"\]\(([^)\s]+)\)", self.prose())

    def blocks(self) -> list[Block]:
        """Every fenced block, in order."""
        fences = list(_FENCE.finditer(self.text))
        inside = [fence.span() for fence in fences]
        titles = [
            (found.start(), found[2])
            for found in _HEADING.finditer(self.text)
            if not any(start <= found.start() < end for start, end in inside)
        ]
        return [
            Block(
                self.path,
                fence[1],
                [title for start, title in titles if start < fence.start()][-1],
                fence[2],
            )
            for fence in fences
        ]


def slug(heading: str) -> str:
    """A heading's anchor."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _tracked() -> list[str]:
    """Every Markdown file: from git, or from the folders where there is no repository."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode == 0 and listed.stdout:
        return sorted(set(listed.stdout.split()))
    folders = ("receiver", "submitter", "tests", "deploy", ".github")
    found = [path for folder in folders for path in (ROOT / folder).rglob("*.md")]
    return sorted(str(path.relative_to(ROOT)) for path in (*ROOT.glob("*.md"), *found))


ALL = {path: Page(path, (ROOT / path).read_text("utf-8")) for path in _tracked()}
PAGES = {path: page for path, page in ALL.items() if not re.match(r"deploy/.+/", path)}
"""All but those of single targets, which `tests/deploy` holds against what they deploy."""

MAIN = PAGES["README.md"]
TEXT = "\n".join(page.text for page in PAGES.values())


def blocks(language: str | None = None, heading: str | None = None) -> list[Block]:
    """Fenced blocks of all pages: of one language, under one heading, or all."""
    return [
        block
        for page in PAGES.values()
        for block in page.blocks()
        if language in (None, block.language) and heading in (None, block.heading)
    ]


def the_block(language: str, containing: str) -> str:
    """The text of the only block of a language that contains a text."""
    [block] = [block for block in blocks(language) if containing in block.text]
    return block.text


def the_line(start: str) -> str:
    """The only line of all pages that begins with a text."""
    [line] = [line for line in TEXT.splitlines() if line.startswith(start)]
    return line


def table(head: str) -> list[list[str]]:
    """The rows of the only table whose head begins with these cells.

    Args:
        head: the head's first cells, such as `setting | meaning`.
    """
    lines = "\n".join(page.prose() for page in PAGES.values()).splitlines()
    [start] = [place for place, line in enumerate(lines) if line.startswith(f"| {head} |")]
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def spans() -> list[str]:
    """Code spans in the prose of all pages."""
    return [span for page in PAGES.values() for span in re.findall(r"`([^`\n]+)`", page.prose())]


def plain(cell: str) -> str:
    """A cell without its backticks."""
    return cell.strip("`")


def commands() -> list[list[str]]:
    """Every `wavehook …` in the prose and in the blocks, as words."""
    written = [span for span in spans() if span.startswith("wavehook ")]
    for block in blocks():
        if block.language in {"sh", "bash"}:
            joined = block.text.replace("\\\n", " ")
            written += re.findall(r"(?<![\w./-])(?:\.venv/bin/)?wavehook [^\n&)\";#]*", joined)
    return [words.removeprefix(".venv/bin/").split()[1:] for words in written]

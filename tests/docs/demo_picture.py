"""The terminal picture of the README: `python -m tests.docs.demo_picture` draws it anew."""

from __future__ import annotations

import html
import io
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

from tests.docs.pages import ROOT

PICTURE = ROOT / ".github" / "demo.svg"
COMMAND = "wavehook demo"
WIDTH = 76
"""Columns of the terminal that is drawn."""


def draw(output: str) -> str:
    """The picture of a terminal that shows the command and its output; needs no other file."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), color_system="truecolor")
    console.print(Text.assemble(("$ ", "bold green"), COMMAND))
    head, _, summary = output.rstrip("\n").rpartition("\n\n")
    for line in head.splitlines():
        bad = re.search(r"killed|failed|refused|dropped", line)
        good = re.search(r"handled", line)
        console.print(Text(line, "yellow" if bad else "green" if good else ""))
    console.print()
    console.print(Text(summary, "bold"))
    drawn = console.export_svg(title=COMMAND, unique_id="demo")
    # Rich names fonts of another host; every system has a monospaced one.
    drawn = re.sub(r"@font-face \{.*?\}\n*", "", drawn, flags=re.DOTALL)
    return re.sub(r"font-family: Fira Code, monospace", "font-family: monospace", drawn)


def lines(drawn: str) -> list[str]:
    """The text of a terminal picture, line by line, without empty lines."""
    rows: dict[float, list[tuple[float, str]]] = {}
    cell = re.compile(r'<text class="demo-r\d+" x="([\d.]+)" y="([\d.]+)"[^>]*>([^<]*)<')
    for found in cell.finditer(drawn):
        rows.setdefault(float(found[2]), []).append((float(found[1]), html.unescape(found[3])))
    joined = ["".join(text for _, text in sorted(row)) for _, row in sorted(rows.items())]
    plain = [line.replace("\xa0", " ").rstrip() for line in joined]
    return [line for line in plain if line.strip()]


def main() -> None:
    """Run the demo and draw it."""
    program = Path(sys.executable).with_name("wavehook")
    done = subprocess.run([program, "demo"], capture_output=True, text=True, check=True)
    PICTURE.write_text(draw(done.stdout), "utf-8")


if __name__ == "__main__":
    main()

"""Table of the failure modes in tests/README.md, with the tests that name each of them.

`python -m tests.support.failure_modes` renews the last column.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.support.paths import ROOT

PAGE = ROOT / "tests" / "README.md"
NONE_YET = "not covered yet"
HEAD = "| id | what happens | what must happen | tests |"
_CODE = re.compile(r"\bF\d+\b")


@cache
def named(folder: Path = ROOT / "tests") -> dict[str, list[str]]:
    """Tests by failure mode, as `folder/file.py::test`: those whose docstring names it.

    A code in the docstring of a module or class stands for all the tests in it, which are given as
    the file or as `file.py::Class`.
    """
    found = defaultdict(set)
    for path in folder.rglob("test_*.py"):
        module = ast.parse(path.read_text("utf-8"))
        for name, docstring in _docstrings(module, path.relative_to(folder).as_posix()):
            for code in _CODE.findall(docstring):
                found[code].add(name)
    return {code: sorted(tests) for code, tests in found.items()}


def _docstrings(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, name: str
) -> Iterator[tuple[str, str]]:
    yield name, ast.get_docstring(node) or ""
    if isinstance(node, ast.Module | ast.ClassDef):
        for child in node.body:
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and (
                child.name.startswith(("test_", "Test"))
            ):
                yield from _docstrings(child, f"{name}::{child.name}")


def rows(page: str) -> list[tuple[str, str, str]]:
    """Code, what happens and what must happen of each row of the table."""
    _, _, table = page.partition(f"{HEAD}\n")
    lines = [line for line in table.splitlines() if line.startswith("| F")]
    cells = [[cell.strip() for cell in line.split("|")] for line in lines]
    return [(each[1], each[2], each[3]) for each in cells]


def renewed(page: str) -> str:
    """The page with the tests as they are now; the table is its end."""
    before, _, _ = page.partition(HEAD)
    tests = named()
    lines = [
        f"| {code} | {happens} | {must} | {_cell(tests.get(code, []))} |"
        for code, happens, must in rows(page)
    ]
    return "\n".join([f"{before}{HEAD}", "|---|---|---|---|", *lines, ""])


def _cell(tests: list[str]) -> str:
    if not tests:
        return NONE_YET
    text = "<br>".join(f"`{test}`" for test in tests)
    if len(tests) == 1:
        return text
    return f"<details><summary>{len(tests)} tests</summary>{text}</details>"


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text("utf-8")), "utf-8")

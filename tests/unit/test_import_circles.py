"""No circle: a module can be read, and imported, before those that import it."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from tests.support.paths import ROOT


def imports() -> dict[str, set[str]]:
    """What each module of the two packages imports when it is imported itself."""
    modules: dict[str, Path] = {}
    for package in ("receiver", "submitter"):
        for path in sorted((ROOT / package).rglob("*.py")):
            words = path.relative_to(ROOT).with_suffix("").parts
            modules[".".join(words).removesuffix(".__init__")] = path
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        found = set()
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                inside = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= {each if each in modules else node.module for each in inside}
        graph[module] = (found & modules.keys()) - {module}
    return graph


def test_modules_import_each_other_in_no_circle() -> None:
    """An order exists in which every module comes after all that it imports."""
    graph = imports()
    assert sum(map(len, graph.values())) > 500
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(" <- ".join(error.args[1])) from None

"""One name, one meaning: a class name is defined once over both packages."""

from __future__ import annotations

import ast
from collections import defaultdict

from tests.support.paths import ROOT


def defined_twice() -> dict[str, list[str]]:
    """Class names that more than one module of the two packages defines, with the modules."""
    modules = defaultdict(list)
    for package in ("receiver", "submitter"):
        for path in sorted((ROOT / package).rglob("*.py")):
            tree = ast.parse(path.read_text("utf-8"))
            for name in {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}:
                modules[name].append(str(path.relative_to(ROOT)))
    return {name: paths for name, paths in modules.items() if len(paths) > 1}


def test_class_names_are_defined_once() -> None:
    """A second class of the same name takes another name: a name has one meaning."""
    assert defined_twice() == {}

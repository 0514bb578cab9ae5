"""One name, one meaning: a class name is defined once over both packages."""

from __future__ import annotations

import ast
from collections import defaultdict

from tests.support.paths import ROOT

ALLOWED: set[str] = {
    "Answer",
    "Connection",
    "Entry",
    "Ledger",
    "Link",
    "Lost",
    "Message",
    "Place",
    "Publisher",
    "Reader",
    "Refused",
    "Request",
    "Row",
    "Run",
    "Sealed",
    "Sender",
    "Settings",
    "Template",
    "Unfit",
    "Watch",
    "Writer",
    "_Place",
    "_Refused",
}
"""Names that two modules may define, each with its reason."""


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
    """A second class of a name takes another name, or stands in the short list with a reason."""
    unexpected = {name: paths for name, paths in defined_twice().items() if name not in ALLOWED}
    assert not unexpected

"""The folder `deploy/` as data: its files, the settings and the commands in them."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.support.paths import ROOT

DEPLOY = ROOT / "deploy"
TARGETS = sorted(path.name for path in DEPLOY.iterdir() if path.is_dir())
BIN = Path(sys.executable).parent

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# After the beginning of a line or span, a folder of programs, or what runs it elsewhere.
_COMMAND = re.compile(
    r"(?:^ *|[`=]|\$\(|/bin/|:/data | -- |exec \w+ )wavehook (?!wavehook)([a-z][^\n`#&|)\"]*)",
    re.MULTILINE,
)


def files(target: str) -> list[Path]:
    """What a person has of a target."""
    found = (DEPLOY / target).rglob("*")
    return sorted(path for path in found if path.is_file() and "__pycache__" not in path.parts)


def text(target: str) -> str:
    """All of a target's files, one after another."""
    return "\n".join(path.read_text("utf-8") for path in files(target))


def block(target: str, language: str, containing: str) -> str:
    """The only block of a target's README that holds a text."""
    readme = (DEPLOY / target / "README.md").read_text("utf-8")
    [found] = [
        each[2] for each in _FENCE.finditer(readme) if each[1] == language and containing in each[2]
    ]
    return found


def commands(written: str) -> list[list[str]]:
    """Every `wavehook …`, as words."""
    return [found[1].split() for found in _COMMAND.finditer(written.replace("\\\n", " "))]


def documents(path: Path) -> list[dict[str, Any]]:
    """The documents of a YAML file; a key that stands twice is an error."""
    return list(YAML(typ="safe", pure=True).load_all(path.read_text("utf-8")))


def program(name: str) -> str | None:
    """A program beside this Python, or on PATH."""
    return shutil.which(name, path=BIN) or shutil.which(name)

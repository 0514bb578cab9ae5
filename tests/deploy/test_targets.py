"""What holds for every target below `deploy/`."""

from __future__ import annotations

import re

import pytest

from receiver.config import REFERENCE
from tests.deploy.targets import DEPLOY, TARGETS, commands, files, text
from tests.docs import pages
from tests.docs.program import check

SECRETS = {
    "a webhook secret": r"whsec_[\w+/=-]{16,}",
    "a private key": r"-----BEGIN",
    "a key of AWS": r"\bAKIA[0-9A-Z]{16}\b",
    "a seal key": r"\b[\w-]{43}=(?!=)",
    "a password in a URL": r"://[^\s:/@$]+:[^\s@$]+@",
    "a long number in hex": r"\b[0-9a-f]{32,}\b",
}


@pytest.mark.parametrize("target", TARGETS)
def test_readme_is_one_screen(target: str) -> None:
    """It says what the target costs when nothing happens, and what was not run."""
    page = (DEPLOY / target / "README.md").read_text("utf-8")
    assert len(page.splitlines()) <= 60
    assert "```" in page
    assert re.search(r"\bidle\b", page)
    assert re.search(r"\bnot run\b", page, re.IGNORECASE)


@pytest.mark.parametrize("target", TARGETS)
def test_hardly_any_python(target: str) -> None:
    """What a target does is in the package; the target only calls it."""
    python = [path for path in files(target) if path.suffix == ".py"]
    lines = [line for path in python for line in path.read_text("utf-8").splitlines()]
    assert len([line for line in lines if line.strip()]) < 15


@pytest.mark.parametrize("target", TARGETS)
def test_no_secrets(target: str) -> None:
    """F16: not even one that is made up, which somebody would keep."""
    written = text(target)
    for kind, pattern in SECRETS.items():
        assert re.search(pattern, written) is None, kind


@pytest.mark.parametrize("target", TARGETS)
def test_settings_exist(target: str) -> None:
    """Every variable of ours that is named is one; all targets share these names."""
    named = set(re.findall(r"\b(?:WAVEHOOK|WAVESPEED)_[A-Z_]+\b", text(target)))
    assert named
    assert named <= {row.name for row in REFERENCE}


@pytest.mark.parametrize("target", TARGETS)
def test_commands_exist(target: str) -> None:
    """Every `wavehook …` is a command, with flags that it has."""
    written = commands(text(target))
    assert written
    for words in written:
        check(words)


def test_targets_have_a_row_each() -> None:
    """The table of the page of deploy, both ways, with a link to the folder's own page."""
    rows = pages.table("target | what it is | folder")
    assert sorted(row[0] for row in rows) == TARGETS
    for target, _, link, *rest in rows:
        assert link == f"[deploy/{target}]({target}/README.md)"
        assert all(rest)

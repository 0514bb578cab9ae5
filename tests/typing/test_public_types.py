"""The types of the public API are part of its promise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SAMPLES = [Path(__file__).with_name(name) for name in ("handlers.py", "kit.py", "submits.py")]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checker's memory, so that only the first run reads the packages."""
    return tmp_path_factory.mktemp("mypy")


def check(file: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mypy", "--strict", "--warn-unused-ignores"]
    config = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(cache)]
    return subprocess.run(
        [*command, *config, str(file)], capture_output=True, text=True, cwd=ROOT, check=False
    )


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: str(sample.stem))
def test_the_sample_has_the_types_it_says(cache: Path, sample: Path) -> None:
    """What is right passes, every mistake in the sample is found."""
    done = check(sample, cache)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_check_can_fail(cache: Path, tmp_path: Path) -> None:
    """A handler that returns nothing where a text is promised does not pass."""
    text = SAMPLES[0].read_text().replace("    return event.id\n", "    return event.model or 5\n")
    broken = tmp_path / "broken.py"
    broken.write_text(text)
    done = check(broken, cache)
    assert done.returncode == 1
    assert "broken.py" in done.stdout
    assert "[return-value]" in done.stdout

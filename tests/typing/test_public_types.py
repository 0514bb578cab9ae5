"""The types of the public API are part of its promise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

SAMPLES = [Path(__file__).with_name(name) for name in ("handlers.py", "kit.py", "submits.py")]
MISTAKES = """
from submitter.catalogue.kling import KlingImageToVideo, KlingTextToVideo
KlingImageToVideo(prompt="p", image="a.png", duration=5)
KlingImageToVideo(prompt="p", image="a.png", duration=7)
KlingImageToVideo(prompt="p", image=5)
KlingImageToVideo(prompt="p")
KlingImageToVideo(prompt="p", image="a.png", tier="ultra")
KlingImageToVideo(prompt="p", image="a.png", seed=1)
KlingTextToVideo(prompt="p", aspect_ratio="4:3")
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What the checker says of what is right and of what is wrong, in one run: reading takes it."""
    folder = tmp_path_factory.mktemp("mypy")
    text = SAMPLES[0].read_text().replace("    return event.id\n", "    return event.model or 5\n")
    for name, content in (("broken.py", text), ("mistakes.py", MISTAKES)):
        (folder / name).write_text(content)
    command = [sys.executable, "-m", "mypy", "--strict", "--warn-unused-ignores"]
    config = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(folder)]
    files = [*SAMPLES, folder / "broken.py", folder / "mistakes.py"]
    done = subprocess.run(
        [*command, *config, *files], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"checked {len(files)} source files" in done.stdout
    return done.stdout.splitlines()


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: str(sample.stem))
def test_the_sample_has_the_types_it_says(found: list[str], sample: Path) -> None:
    """What is right passes, every mistake in the sample is found."""
    assert [line for line in found if sample.name in line] == []


def test_a_result_of_another_type_is_found(found: list[str]) -> None:
    """A handler that returns nothing where a text is promised does not pass."""
    [line] = [line for line in found if "broken.py" in line and ": error:" in line]
    assert line.endswith("[return-value]")


def test_mistakes_in_an_input_are_found(found: list[str]) -> None:
    """duration=7 and its like are found before anything runs."""
    lines = [line for line in found if "mistakes.py" in line and ": error:" in line]
    assert [line.split(":")[1] for line in lines] == ["4", "5", "6", "7", "8", "9"]

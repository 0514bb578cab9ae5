"""The package of the chapter "Your own handler": installed from its folder, named, run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from receiver.cli.application import application
from receiver.testing import deliveries, event
from tests.docs import pages
from tests.docs.test_examples import OTHERS, SECRET, run, serving
from tests.support import needed

FILES = {
    "pyproject.toml": "toml",
    "wavehook_playlist.py": "python",
    "test_wavehook_playlist.py": "python",
}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The three files in a folder of that name."""
    folder = tmp_path / "wavehook-playlist"
    folder.mkdir()
    for name, language in FILES.items():
        (folder / name).write_text(pages.the_block(language, f"# {name}\n"))
    return folder


def pip(*words: str | Path) -> None:
    """Install, without a network and without a look at what else is installed."""
    needed.module("pip")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "--no-compile"]
    subprocess.run([*command, *offline, *words], check=True, capture_output=True, timeout=60)


async def test_it_is_installed_named_and_run(package: Path, tmp_path: Path) -> None:
    """From the folder to a handler that `check` knows and `serve` runs, on a signed delivery."""
    assert "`pip install ./wavehook-playlist`" in pages.TEXT
    pip("--target", tmp_path / "site", package)
    (tmp_path / "wavehook.toml").write_text(pages.the_block("toml", 'use = "playlist"'))
    settings = {
        "PYTHONPATH": str(tmp_path / "site"),
        "WAVEHOOK_WAVESPEED_SECRETS": SECRET,
    }
    checked = await run(tmp_path, "wavehook", "check", "--json", **settings)
    found = [json.loads(line) for line in checked.splitlines()]
    assert [row["found"] for row in found if row["check"] == "handler"] == [
        "watch: writes to videos.m3u"
    ]
    made = event(id="abc", outputs=["https://cdn.example/1.mp4"])
    async with serving(tmp_path, **settings) as server:
        url = str((await server.line("server.started"))["url"])
        sent = deliveries.wavespeed(made.body, SECRET)
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.post(
                f"{url}/webhooks/wavespeed", headers=list(sent.headers), content=sent.body
            )
        assert answer.status_code == 202
        settled = await server.line("dispatch.settled")
    assert (settled["handler"], settled["outcome"]) == ("watch", "done")
    listed = (tmp_path / "videos.m3u").read_text().splitlines()
    assert listed == ["# wavespeed:abc:completed/watch", "https://cdn.example/1.mp4"]


def test_a_wrong_setting_is_told_at_the_start(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the text says: the handler and the key are named."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(package), *sys.path])
    info = package / "wavehook_playlist-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: wavehook-playlist\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[wavehook.handlers]\nplaylist = wavehook_playlist:create\n"
    )
    (tmp_path / "wavehook.toml").write_text('[handlers.watch]\nuse = "playlist"\ntoo = "x"\n')
    result = CliRunner().invoke(application(), ["drain"])
    sys.modules.pop("wavehook_playlist")
    assert result.exit_code == 2
    assert "handlers.watch.to: missing, expected the file of the playlist" in result.stderr
    assert "handlers.watch.too: unknown key" in result.stderr


def test_its_own_tests_pass(package: Path) -> None:
    """As a stranger runs them: pytest in the folder, and no plug-ins."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    environ = OTHERS | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}
    done = subprocess.run(
        command, cwd=package, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert "13 passed" in done.stdout

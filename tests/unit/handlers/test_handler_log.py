"""The `log` handler writes real files and the real standard output."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from receiver.errors import SettingsError
from receiver.handlers.base import Context
from receiver.handlers.log import create
from tests.support.events import event

BODY = (
    b'{"id": "abc", "status": "completed", "model": "m", "input": {"prompt": "my secret cat"},'
    b' "outputs": ["https://cdn.example/1.mp4", "https://cdn.example/2.mp4"]}'
)


EVENT = event("abc", model="m", context={"mail": "me@example.org"}, body=BODY)


def context(attempt: int = 1) -> Context:
    return Context("wavespeed:abc:completed/log", "log", attempt, deadline=0.0)


async def test_a_line_on_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    """One JSON object a line, and nothing else."""
    await create("log", {})(EVENT, context())
    text = capfd.readouterr().out
    assert text.count("\n") == 1
    assert json.loads(text) == {
        "id": "wavespeed:abc:completed",
        "source": "wavespeed",
        "type": "prediction.completed",
        "subject": "abc",
        "model": "m",
        "outputs": 2,
        "received_at": "2027-01-15T08:00:00Z",
        "key": "wavespeed:abc:completed/log",
        "attempt": 1,
    }


async def test_nothing_private_is_in_it(tmp_path: Path) -> None:
    """F16: no prompt, no context and, unless asked, no URL of a result."""
    log = create("log", {"to": str(tmp_path / "log")})
    await log(EVENT, context())
    text = (tmp_path / "log").read_text()
    assert not any(word in text for word in ("cat", "me@example.org", "cdn.example"))


async def test_output_urls_where_asked(tmp_path: Path) -> None:
    """`outputs = true` adds the URLs and leaves the count as it is."""
    log = create("log", {"to": str(tmp_path / "log"), "outputs": True})
    await log(EVENT, context())
    record = json.loads((tmp_path / "log").read_text())
    assert record["outputs"] == 2
    assert record["output_urls"] == ["https://cdn.example/1.mp4", "https://cdn.example/2.mp4"]


async def test_an_event_without_a_prediction_has_no_outputs(tmp_path: Path) -> None:
    """F11: what could not be read is logged all the same."""
    log = create("log", {"to": str(tmp_path / "log"), "outputs": True})
    await log(replace(EVENT, body=b"\xff"), context())
    record = json.loads((tmp_path / "log").read_text())
    assert (record["outputs"], record["output_urls"]) == (0, [])


async def test_lines_are_whole_when_many_write(tmp_path: Path) -> None:
    """Two handlers on one file, many events at once: every line is one object."""
    logs = [create(name, {"to": str(tmp_path / "log")}) for name in ("one", "two")]
    await asyncio.gather(
        *(log(EVENT, context(attempt)) for attempt in range(1, 51) for log in logs)
    )
    lines = (tmp_path / "log").read_text().splitlines()
    attempts = sorted(json.loads(line)["attempt"] for line in lines)
    assert attempts == sorted([*range(1, 51)] * 2)


async def test_a_rotated_file_is_made_anew(tmp_path: Path) -> None:
    """The file can be moved away while it is in use."""
    log = create("log", {"to": str(tmp_path / "log")})
    await log(EVENT, context(1))
    (tmp_path / "log").rename(tmp_path / "log.1")
    await log(EVENT, context(2))
    assert json.loads((tmp_path / "log.1").read_text())["attempt"] == 1
    assert json.loads((tmp_path / "log").read_text())["attempt"] == 2


async def test_a_line_that_the_system_takes_in_parts_is_whole(tmp_path: Path) -> None:
    """A pipe that is full takes a long line bit by bit; nothing of it is lost."""
    os.mkfifo(tmp_path / "pipe")
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    # Held open, so that the reader does not see an end between two openings.
    held = os.open(tmp_path / "pipe", os.O_WRONLY)
    urls = ",".join(f'"https://cdn.example/{n}"' for n in range(20_000))
    body = f'{{"id": "a", "status": "completed", "outputs": [{urls}]}}'.encode()
    log = create("log", {"to": str(tmp_path / "pipe"), "outputs": True})
    await log(replace(EVENT, body=body), context())
    os.close(held)
    await asyncio.to_thread(reader.join)
    assert len(json.loads(found[0])["output_urls"]) == 20_000


async def test_the_file_is_ours_alone(tmp_path: Path) -> None:
    """F16: other users of the machine cannot read it."""
    create("log", {"to": str(tmp_path / "log")})
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"to": "/nowhere/log"}, r"handlers\.log\.to: '/nowhere/log', expected a writable file"),
        ({"to": "/"}, r"expected a writable file \(Is a directory\)"),
        ({"to": "a\0b"}, r"expected a writable file \(not a path\)"),
        ({"to": ""}, r"handlers\.log\.to: '', expected"),
        ({"outputs": "perhaps"}, r"handlers\.log\.outputs: 'perhaps', expected true or false"),
        ({"output": True}, r"handlers\.log\.output: unknown key.*did you mean outputs\?"),
    ],
)
def test_faults_show_at_start(settings: dict[str, object], fault: str) -> None:
    """A file that cannot be written is known before the first event."""
    with pytest.raises(SettingsError, match=fault):
        create("log", settings)


async def test_its_check_opens_the_file(tmp_path: Path) -> None:
    """What was writable at the start need not be so now."""
    log = create("log", {"to": str(tmp_path / "folder")})
    assert await log.check() == f"{tmp_path}/folder can be written"
    assert (tmp_path / "folder").read_text() == ""
    (tmp_path / "folder").unlink()
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        await log.check()
    assert await create("log", {}).check() == "writes to standard output"

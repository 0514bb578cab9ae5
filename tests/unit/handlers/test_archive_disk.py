"""An archive's folder: what is under a final name is whole, and nothing is outside of the root."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import json
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from receiver.handlers.archive import disk as disk_module
from receiver.handlers.archive.disk import LEFTOVER_AGE_S, DiskPartialFile, DiskStorage, Folder
from receiver.handlers.archive.names import NameTemplate, OutputName
from receiver.handlers.archive.storage import PRIVATE_FOLDER, NameTaken
from tests.support import needed
from tests.support.outputs import LARGE, MP4, files

KEY = "0123456789abcdef-0"
NAME = OutputName(NameTemplate.parse("made/{index}{ext}"), {"index": "0"})
FINAL = "made/0.mp4"


async def part(
    root: Path, data: bytes = MP4, *, mark: int = 2**20, etag: str | None = '"v1"'
) -> DiskPartialFile:
    """A part that has this content."""
    made = await DiskStorage(root, mark).partial_file(KEY, NAME)
    assert isinstance(made, DiskPartialFile)
    await made.begin(etag)
    made.content.begin(data[:4096])
    for at in range(0, len(data), 2**18):
        await made.write([data[at : at + 2**18]])
    await made.flush()
    return made


async def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    """F35: until it is kept nothing is under its name; then all of it is, and nothing else."""
    made = await part(tmp_path)
    assert [name for name in files(tmp_path) if not name.startswith(PRIVATE_FOLDER)] == []
    assert await made.keep() == FINAL
    await made.close()
    assert files(tmp_path) == {FINAL: MP4}
    assert (tmp_path / FINAL).stat().st_nlink == 1
    assert made.content.sha256 == hashlib.sha256(MP4).hexdigest()


async def test_the_same_file_again_is_done(tmp_path: Path) -> None:
    """F25: who comes late with the same content has nothing to do."""
    for _ in range(2):
        made = await part(tmp_path)
        assert await made.keep() == FINAL
        await made.close()
    assert files(tmp_path) == {FINAL: MP4}


@pytest.mark.parametrize("there", [b"another", None, Path("/etc/hostname")])
async def test_another_file_is_never_replaced(tmp_path: Path, there: bytes | Path | None) -> None:
    """F36: not a file, not a folder, and not what a symbolic link leads to."""
    (tmp_path / "made").mkdir()
    final = tmp_path / FINAL
    if isinstance(there, Path):
        final.symlink_to(there)
    elif there is None:
        final.mkdir()
    else:
        final.write_bytes(there)
    before = final.lstat()
    made = await part(tmp_path)
    with pytest.raises(NameTaken):
        await made.keep()
    await made.close()
    after = final.lstat()
    assert (before.st_ino, before.st_size) == (after.st_ino, after.st_size)


@pytest.mark.parametrize("where", ["made", PRIVATE_FOLDER])
async def test_a_symbolic_link_in_the_root_leads_nowhere(tmp_path: Path, where: str) -> None:
    """F36: a folder that is a link out of the root is not entered."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (root / where).symlink_to(outside)

    async def keep() -> None:
        made = await part(root)
        try:
            await made.keep()
        finally:
            await made.close()

    with pytest.raises(NotADirectoryError, match="symbolic links below the root"):
        await keep()
    assert list(outside.iterdir()) == []


async def test_the_root_itself_may_be_a_link(tmp_path: Path) -> None:
    """It is the person's own choice."""
    (tmp_path / "real").mkdir()
    (tmp_path / "root").symlink_to(tmp_path / "real")
    made = await part(tmp_path / "root")
    await made.keep()
    await made.close()
    assert files(tmp_path / "real") == {FINAL: MP4}


async def test_a_root_that_went_away_is_not_made_anew(tmp_path: Path) -> None:
    """What was mounted there may come back."""
    with pytest.raises(FileNotFoundError):
        await part(tmp_path / "gone")
    assert not (tmp_path / "gone").exists()


async def test_a_part_is_gone_on_with_after_a_kill(tmp_path: Path) -> None:
    """F25: from where it was last noted; what came after that is fetched again."""
    killed = await part(tmp_path, LARGE[: 2 * 2**20])
    await killed.write([b"not noted"])
    await killed.flush()
    os.close(killed._file)
    resumed = await DiskStorage(tmp_path).partial_file(KEY, NAME)
    assert (resumed.etag, resumed.content.size) == ('"v1"', 2 * 2**20)
    await resumed.write([LARGE[2 * 2**20 :]])
    await resumed.keep()
    await resumed.close()
    assert files(tmp_path) == {FINAL: LARGE}


async def test_a_part_of_before_a_power_cut_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F25: nobody knows what of it has come to the disk."""
    killed = await part(tmp_path, LARGE[: 2 * 2**20])
    os.close(killed._file)
    monkeypatch.setattr(disk_module, "_boot", lambda: "another start")
    resumed = await DiskStorage(tmp_path).partial_file(KEY, NAME)
    assert (resumed.etag, resumed.content.size) == (None, 0)
    await resumed.close()


def test_a_start_of_the_machine_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for every process; where there is none, no part is ever gone on with."""
    needed.linux()
    assert disk_module._boot() == disk_module._boot.__wrapped__()

    def refuse(*_: Any, **__: Any) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", refuse)
    assert len({disk_module._boot.__wrapped__() for _ in range(3)}) == 3


async def test_a_part_that_is_closed_is_gone_on_with_from_its_end(tmp_path: Path) -> None:
    """A run that ends in good order loses nothing."""
    await (await part(tmp_path, LARGE[:5000])).close()
    resumed = await DiskStorage(tmp_path).partial_file(KEY, NAME)
    assert resumed.content.size == 5000
    assert resumed.content.kind.name == "mp4"
    await resumed.close()


@pytest.mark.parametrize(("etag", "size"), [(None, 5000), ('"v1"', 100)])
async def test_what_cannot_be_gone_on_with_is_removed(
    tmp_path: Path, etag: str | None, size: int
) -> None:
    """Without an ETag nobody knows whether the rest belongs to it."""
    await (await part(tmp_path, MP4[:size], etag=etag)).close()
    assert files(tmp_path) == {}


@pytest.mark.parametrize(
    "note", ['{"etag": "1", "size": 999999, "boot": "here"}', "", "{}", '{"size": "1"}', None]
)
async def test_a_note_that_does_not_fit_is_not_believed(
    tmp_path: Path, note: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part that is shorter than was noted, or whose note was lost, begins anew."""
    monkeypatch.setattr(disk_module, "_boot", lambda: "here")
    await (await part(tmp_path, LARGE[:5000])).close()
    path = tmp_path / PRIVATE_FOLDER / f"{KEY}.json"
    path.unlink() if note is None else path.write_text(note)
    resumed = await DiskStorage(tmp_path).partial_file(KEY, NAME)
    assert (resumed.etag, resumed.content.size) == (None, 0)
    await resumed.close()


async def test_a_kept_file_is_not_written_as_a_part(tmp_path: Path) -> None:
    """F25: killed between its two names, the file under the final one stays as it is."""
    await (await part(tmp_path, LARGE[:5000])).close()
    (tmp_path / "made").mkdir()
    os.link(tmp_path / PRIVATE_FOLDER / f"{KEY}.part", tmp_path / FINAL)
    made = await part(tmp_path, LARGE)
    with pytest.raises(NameTaken):
        await made.keep()
    await made.close()
    assert (tmp_path / FINAL).read_bytes() == LARGE[:5000]


async def test_two_runs_do_not_write_one_part(tmp_path: Path) -> None:
    """F24: where the first only seemed to be dead, the second comes again."""
    first = await part(tmp_path)
    with pytest.raises(BlockingIOError, match="another run of this dispatch is still writing it"):
        await part(tmp_path)
    await first.keep()
    await first.close()
    assert files(tmp_path) == {FINAL: MP4}


async def test_a_part_that_is_removed_while_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F24: the other run has just ended: a part that has no name any more is none."""
    lock = fcntl.flock
    left = [tmp_path / PRIVATE_FOLDER / f"{KEY}.part"]

    def late(file: int, operation: int) -> None:
        while left:
            left.pop().unlink()
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    made = await part(tmp_path)
    await made.keep()
    await made.close()
    assert files(tmp_path) == {FINAL: MP4}


async def test_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There the part is renamed, and what is there is not replaced either."""

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    for _ in range(2):
        made = await part(tmp_path)
        await made.keep()
        await made.close()
        assert files(tmp_path) == {FINAL: MP4}
    made = await part(tmp_path, LARGE)
    with pytest.raises(NameTaken):
        await made.keep()
    await made.close()
    assert (tmp_path / FINAL).read_bytes() == MP4


async def test_another_fault_of_a_link_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is no file system without links."""

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(os, "link", refuse)
    made = await part(tmp_path)
    with pytest.raises(OSError, match="no room"):
        await made.keep()
    await made.close()


async def test_what_would_fill_the_disk_is_not_begun(tmp_path: Path) -> None:
    """F20: the inbox may be on the same disk."""
    made = await part(tmp_path)
    await made.expect(1000)
    with pytest.raises(OSError, match="bytes are needed, and") as full:
        await made.expect(2**60)
    assert full.value.errno == errno.ENOSPC
    await made.close()


async def test_a_write_that_fails_is_told_by_the_next_step(tmp_path: Path) -> None:
    """F20: nothing is kept of what could not be written, and what was, is not forgotten."""
    made = await part(tmp_path, LARGE)
    file, made._file = made._file, os.open("/dev/full", os.O_RDWR)
    await made.write([b"x" * 2**20])
    with pytest.raises(OSError, match="No space left"):
        await made.keep()
    assert made.content.size == len(LARGE)
    await made.write([b"y"])
    with pytest.raises(OSError, match="an earlier block was not written"):
        await made.flush()
    await made.close()
    os.close(file)
    assert set(files(tmp_path)) == {f"{PRIVATE_FOLDER}/{KEY}.part", f"{PRIVATE_FOLDER}/{KEY}.json"}


async def test_a_cancelled_run_leaves_no_thread_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F24: what a thread has begun to write is written before the part is let go of."""
    made = await part(tmp_path, LARGE, mark=2**30)
    write, gate = made._write, threading.Event()

    def slowly(blocks: Sequence[bytes]) -> None:
        gate.wait(10)
        write(blocks)

    monkeypatch.setattr(made, "_write", slowly)
    await made.write([LARGE[:100_000]])
    waiting = asyncio.ensure_future(made.flush())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.sleep(0)
    assert not waiting.done()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert made.content.size == len(LARGE) + 100_000
    await made.close()
    note = json.loads((tmp_path / PRIVATE_FOLDER / f"{KEY}.json").read_text())
    assert (note["etag"], note["size"]) == ('"v1"', len(LARGE) + 100_000)


async def test_leftovers_of_expired_outputs_are_removed(tmp_path: Path) -> None:
    """F25: what nobody has gone on with for 8 days; the rest stays."""
    ours = tmp_path / PRIVATE_FOLDER
    ours.mkdir()
    old = time.time() - LEFTOVER_AGE_S - 60
    for name in ("old.part", "old.json", "new.part"):
        (ours / name).write_bytes(b"x")
        if name.startswith("old"):
            os.utime(ours / name, (old, old))
    made = await part(tmp_path)
    await made.keep()
    await made.close()
    assert set(files(tmp_path)) == {FINAL, f"{PRIVATE_FOLDER}/new.part"}


async def test_our_own_files_are_for_their_owner(tmp_path: Path) -> None:
    """F16: a manifest holds prompts; an output has the rights of any file."""
    disk = DiskStorage(tmp_path)
    await disk.write("made/manifest.json", b"{}")
    await (await part(tmp_path, LARGE[:5000])).close()
    made = await part(tmp_path)
    await made.keep()
    await made.close()
    mask = os.umask(0)
    os.umask(mask)
    modes = {
        name: (tmp_path / name).stat().st_mode & 0o777
        for name in ("made/manifest.json", FINAL, PRIVATE_FOLDER, "made")
    }
    assert modes == {
        "made/manifest.json": 0o600,
        FINAL: 0o666 & ~mask,
        PRIVATE_FOLDER: 0o700 & ~mask,
        "made": 0o777 & ~mask,
    }


async def test_small_files_are_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A manifest that could not be renamed leaves the earlier one, and nothing beside it."""
    disk = DiskStorage(tmp_path)
    await disk.write("made/manifest.json", b"one")

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(OSError, match="no room"):
        await disk.write("made/manifest.json", b"two")
    assert files(tmp_path) == {"made/manifest.json": b"one"}
    assert await disk.read("made/manifest.json") == b"one"


async def test_what_is_not_there(tmp_path: Path) -> None:
    """It has no content and no size, and to remove it is no fault."""
    disk = DiskStorage(tmp_path)
    (tmp_path / "made").mkdir()
    assert await disk.read("gone/manifest.json") is None
    assert await disk.size("made/gone") is None
    assert await disk.size("made/../made") is None
    await disk.remove("gone/x")
    assert Folder(tmp_path).sha256("gone/x") is None


async def test_check_tries_the_folder(tmp_path: Path) -> None:
    """It writes, reads and removes, and says how much room there is."""
    found = await DiskStorage(tmp_path).check()
    assert found.startswith(f"{tmp_path}: files can be written, read and removed; ")
    assert found.endswith(" GB are free")
    assert files(tmp_path) == {}


async def test_check_believes_what_it_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that gives back another thing than it took is not all right."""
    disk = DiskStorage(tmp_path)
    monkeypatch.setattr(Folder, "read", lambda *_: b"another")
    with pytest.raises(OSError, match="that was read differs from what was written"):
        await disk.check()

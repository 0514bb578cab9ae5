"""Processes that start at once and share the file of the seal key."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

from submitter.submit.context_token import load_or_create_key


def test_many_processes_end_with_one_key(tmp_path: Path) -> None:
    """F3: of processes that start at once, every one has the key that is in the file."""
    path = tmp_path / "seal.key"
    with multiprocessing.get_context("fork").Pool(4) as pool:
        keys = set(pool.map(load_or_create_key, [path] * 16, chunksize=1))
    assert keys == {path.read_text().strip()}

"""Where the clone and the files that several suites read are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
"""The clone: the folder of pyproject.toml."""

VALID_SIGNATURES: list[dict[str, Any]] = json.loads(
    (ROOT / "tests" / "support" / "vectors" / "wavespeed.json").read_bytes()
)["valid"]
"""Webhooks with their signatures, made with openssl."""

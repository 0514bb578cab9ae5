"""Context token: the submitter's JSON, encrypted into the webhook URL.

A token is a Fernet token without its padding: encrypted, authenticated and dated. Without a key it
can be neither read nor forged.
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from submitter.errors import BadInput, BadSettings, ContextTooLarge, Fault
from submitter.prediction import JSON
from submitter.submit.json_check import json_faults

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

SETTING = "WAVEHOOK_SEAL_KEYS"

MAX_CONTEXT_BYTES = 2048
"""Size of a context as JSON; it travels in a URL."""

MAX_TOKEN_CHARS = 4096
"""Length of a token; longer ones are refused unread, and `seal` makes none as long."""

_CLOCK_SKEW_S = 240
"""Seconds that the sealing clock may be ahead, beyond the 60 s that Fernet allows; together as much
as for a webhook's signature."""

_MAX_MODEL_CHARS = 256
_ALPHABET = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Sealed:
    """Content of a token.

    Attributes:
        context: any JSON.
        model: the model that the token is valid for; None: any.
        submission: the key of the submission in the ledger, if any.
    """

    context: JSON = field(repr=False)
    model: str | None = None
    submission: str | None = None


class Seal:
    """Encrypts contexts into tokens for URLs, and decrypts them.

    Args:
        keys: Fernet keys, newest first. The first encrypts, all decrypt: keep a retired key until
            its last task has ended.
        lifetime: seconds until a token expires. The API keeps a task for 7 days; one more day
            leaves room for its webhook's retries.

    Raises:
        BadSettings: no key was given, or one is not a Fernet key.
    """

    def __init__(self, keys: Sequence[str], *, lifetime: float = 8 * 86400.0) -> None:
        if not keys:
            raise BadSettings(SETTING, f"needs at least one key; make one with {_HOW}")
        for place, key in enumerate(keys, 1):
            if not _is_key(key):
                what = f"key {place} is not a Fernet key (32 bytes in URL-safe base64)"
                raise BadSettings(SETTING, f"{what}; make one with {_HOW}")
        self._keys = tuple(keys)
        self._lifetime = int(lifetime)

    def seal(
        self, context: JSON, *, model: str | None, now: float, submission: str | None = None
    ) -> str:
        """Make a token.

        Args:
            context: any JSON of at most `MAX_CONTEXT_BYTES` bytes.
            model: the model's id; the token is refused in a webhook of another model.
            now: Unix seconds.
            submission: the key by which the webhook finds the submission.

        Raises:
            BadInput: the context is not JSON.
            ContextTooLarge: it is too large for a URL.
        """
        faults, _ = json_faults(context, "context")
        if model is not None and len(model) > _MAX_MODEL_CHARS:
            faults.append(Fault("model", f"is longer than {_MAX_MODEL_CHARS} characters"))
        if faults:
            raise BadInput(faults)
        size = len(_encode(context))
        if size > MAX_CONTEXT_BYTES:
            raise ContextTooLarge(size, MAX_CONTEXT_BYTES)
        held: dict[str, JSON] = {"context": context, "model": model}
        if submission is not None:
            held["submission"] = submission
        plain = _encode(held)
        return self._ring.encrypt_at_time(plain, int(now)).decode().rstrip("=")

    def open(self, token: str, now: float) -> Sealed | None:
        """Decrypt a token.

        Args:
            token: the last segment of a webhook's path; any text.
            now: Unix seconds.

        Returns:
            Its content; None if the token is malformed, forged, expired or dated in the future.
        """
        from cryptography.fernet import InvalidToken

        # Base64 decoders skip unknown characters; here each token has one spelling.
        if len(token) > MAX_TOKEN_CHARS or not _ALPHABET.fullmatch(token):
            return None
        padded = token + "=" * (-len(token) % 4)
        try:
            plain = self._ring.decrypt_at_time(
                padded, self._lifetime + _CLOCK_SKEW_S, int(now) + _CLOCK_SKEW_S
            )
            held = json.loads(plain)
        # ValueError: another program used one of the keys.
        except (InvalidToken, ValueError, RecursionError):
            return None
        if not isinstance(held, dict) or "context" not in held:
            return None
        model, submission = held.get("model"), held.get("submission")
        return Sealed(
            held["context"],
            model if isinstance(model, str) else None,
            submission if isinstance(submission, str) else None,
        )

    @cached_property
    def _ring(self) -> MultiFernet:
        # Importing cryptography costs 6 MiB and 20 ms, which a receiver without contexts saves.
        from cryptography.fernet import Fernet, MultiFernet

        return MultiFernet(Fernet(key) for key in self._keys)


_HOW = "`wavehook secret --seal-key`"


def _is_key(key: str) -> bool:
    # Some of these errors quote the key, so they must not be chained to another.
    try:
        return len(base64.urlsafe_b64decode(key.encode("ascii"))) == 32
    except ValueError:
        return False


def _encode(value: JSON) -> bytes:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode()


def load_or_create_key(path: str | Path) -> str:
    """Read the key file, or create it readable by its owner only.

    Concurrent processes end with the same key: a new file appears complete or not at all.

    Args:
        path: of the key file, beside the database.

    Raises:
        BadSettings: it cannot be read or created, or has no valid key.
    """
    path = Path(path)
    try:
        if not path.exists():
            # The same as `Fernet.generate_key`, without importing cryptography.
            _create(path, base64.urlsafe_b64encode(os.urandom(32)) + b"\n")
        return _read(path)
    except OSError as error:
        raise _unusable(path, "read or created", error) from None


def read_key(path: Path) -> str | None:
    """Read the key file; None if it does not exist.

    Args:
        path: of the key file, beside the database.

    Raises:
        BadSettings: it cannot be read, or has no valid key.
    """
    try:
        return _read(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _unusable(path, "read", error) from None


def _read(path: Path) -> str:
    key = path.read_bytes().decode("ascii", "replace").strip()
    if not _is_key(key):
        raise BadSettings(SETTING, f"the file {path} has no valid Fernet key; restore or remove it")
    return key


def _unusable(path: Path, what: str, error: OSError) -> BadSettings:
    why = f"the key file {path} cannot be {what} ({error.strerror})"
    return BadSettings(SETTING, f"{why}; put the keys into this setting instead")


def _create(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            # Unlike a rename, a link never replaces the key that another process has just made.
            os.link(draft, path)
        except FileExistsError:
            return
        # A power cut must not lose the key of tokens that were sent already.
        if os.name == "posix":  # other systems cannot open folders
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    finally:
        draft.unlink()

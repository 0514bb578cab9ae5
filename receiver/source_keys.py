"""Sources and their keys, from the settings; key rotation means that each may have several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, assert_never

from receiver.api_client import SECRET_TIMEOUT_S, fetch_secret
from receiver.config import Settings
from receiver.intake import TrustedSource
from receiver.sources.base import WAVESPEED, Source
from receiver.sources.header_hmac import HeaderHmac
from receiver.sources.insecure import Insecure
from receiver.sources.standard import StandardWebhooks
from receiver.sources.wavespeed import WaveSpeedSource
from submitter.errors import SubmitterError

if TYPE_CHECKING:
    from receiver.config import SourceSettings


def load_sources(
    settings: Settings, faults: list[str], *, secrets: Sequence[str] = ()
) -> dict[str, TrustedSource]:
    """Make every source of the settings, with its keys.

    Args:
        settings: sources, secrets and the API key.
        faults: gets a sentence for each source that cannot verify anything. The webhook secret is
            fetched from the API only if this is empty until then.
        secrets: WaveSpeedAI's webhook secrets, in place of those in the settings.
    """
    found: dict[str, TrustedSource] = {}
    for name, section in settings.sources.items():
        if name != WAVESPEED:
            source = _source(name, section)
            keys = [] if isinstance(source, Insecure) else _secrets(section)
            found[name] = _trusted(source, f"sources.{name}.secrets", keys, faults)
    given = secrets or [key.get_secret_value() for key in settings.wavespeed_secrets]
    label = "WAVEHOOK_WAVESPEED_SECRETS"
    if not given and WAVESPEED in settings.sources:
        given, label = _secrets(settings.sources[WAVESPEED]), f"sources.{WAVESPEED}.secrets"
    if not given and settings.api_key is not None:
        given, label = _fetch(settings, faults), "WAVESPEED_API_KEY"
        if not given:
            return found
    if given:
        found[WAVESPEED] = _trusted(WaveSpeedSource(), label, given, faults)
    elif (WAVESPEED in settings.sources or not found) and not _mention_secrets(faults):
        faults.append(
            "WAVEHOOK_WAVESPEED_SECRETS: it is not set, and without a secret nothing can be "
            "verified; expected one or more whsec_…, or WAVESPEED_API_KEY to fetch it with, or "
            "a [sources.NAME] section"
        )
    return found


def _fetch(settings: Settings, faults: list[str]) -> list[str]:
    if faults:
        return []  # the start fails anyhow, without waiting for the network
    try:
        return [fetch_secret(settings)]
    except (SubmitterError, TimeoutError) as error:
        reason = str(error) or f"no response in {SECRET_TIMEOUT_S:g} s"
        faults.append(
            f"WAVESPEED_API_KEY = ***: the webhook secret could not be fetched from "
            f"{settings.base_url} ({reason}); expected the API to give it. With "
            "WAVEHOOK_WAVESPEED_SECRETS set, a start does not need the API"
        )
        return []


def _source(name: str, section: SourceSettings) -> Source[Any]:
    match section.use:
        case "wavespeed":
            return WaveSpeedSource(name)
        case "standard":
            return StandardWebhooks(name)
        case "header_hmac":
            given = {"header": section.header, "prefix": section.prefix}
            given["encoding"] = section.encoding
            return HeaderHmac(name, **{k: v for k, v in given.items() if v is not None})
        case "insecure":
            return Insecure(name)
        case unknown:
            assert_never(unknown)


def _trusted(
    source: Source[Any], label: str, secrets: Sequence[str], faults: list[str]
) -> TrustedSource:
    keys = []
    for secret in secrets:
        try:
            keys.append(source.key(secret))
        except ValueError as error:
            faults.append(f"{label} = ***: {error}")
    return TrustedSource(source, tuple(keys))


def _secrets(section: SourceSettings) -> list[str]:
    return [secret.get_secret_value() for secret in section.secrets]


def _mention_secrets(faults: Sequence[str]) -> bool:
    """True if the cause of a missing secret may be among the faults already."""
    words = ("SECRETS", "secrets", "API_KEY", "api_key", "sources.", ".toml", "--config", "_CONFIG")
    return any(word in fault for fault in faults for word in words)

"""TLS towards a broker: a certificate authority of your own, and a certificate for ourselves.

ca = "ca.pem"                           # trusted in place of the system's
cert = "client.pem"                     # where the broker asks who we are
key = "client.key"                      # unless it stands in `cert`
"""

from __future__ import annotations

import ssl
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from receiver.errors import SettingsError


class Certificates(BaseModel):
    """The settings of all handlers that speak TLS by themselves."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None


def context(name: str, certificates: Certificates) -> ssl.SSLContext | None:
    """What the settings ask for; None where they ask for nothing.

    Args:
        name: the handler's name, for the faults.
        certificates: its settings.

    Raises:
        SettingsError: a file is not what it should be.
    """
    given = certificates
    if given.key and not given.cert:
        fault = f"handlers.{name}.key: '{given.key}', expected `cert` beside it"
        raise SettingsError([fault])
    if not given.ca and not given.cert:
        return None
    made = ssl.create_default_context()
    faults = []
    try:
        if given.ca:
            made = ssl.create_default_context(cafile=given.ca)
    except (OSError, ValueError):
        faults.append(f"handlers.{name}.ca: '{given.ca}', expected a file of certificates in PEM")
    try:
        if given.cert:
            made.load_cert_chain(given.cert, given.key)
    except (OSError, ValueError):
        faults.append(
            f"handlers.{name}.cert: '{given.cert}', expected a file with a certificate in PEM, "
            "and its key, without a password, in it or in `key`"
        )
    if faults:
        raise SettingsError(faults)
    return made
